from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("deliveries", "0007_metric_totals")]

    operations = [
        # What an interrupted run of this migration left.
        migrations.RunSQL("DROP INDEX CONCURRENTLY IF EXISTS lane_paused", migrations.RunSQL.noop),
        AddIndexConcurrently(
            model_name="lane",
            index=models.Index(
                condition=models.Q(("is_paused", True)), fields=["endpoint"], name="lane_paused"
            ),
        ),
    ]
