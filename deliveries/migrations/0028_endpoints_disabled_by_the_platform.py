from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("deliveries", "0027_event_traceparent")]

    operations = [
        # What an interrupted run of this migration left.
        migrations.RunSQL(
            "DROP INDEX CONCURRENTLY IF EXISTS endpoint_disabled_by_us", migrations.RunSQL.noop
        ),
        AddIndexConcurrently(
            model_name="endpoint",
            index=models.Index(
                fields=["-updated_at", "-id"],
                condition=models.Q(
                    ("deleted_at__isnull", True), ("disabled_reason__in", ("failing", "gone", "receiver"))
                ),
                name="endpoint_disabled_by_us",
            ),
        ),
    ]
