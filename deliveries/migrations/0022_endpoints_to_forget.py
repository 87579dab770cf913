from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("deliveries", "0021_undo_of_deleting")]

    operations = [
        # What an interrupted run of this migration left.
        migrations.RunSQL("DROP INDEX CONCURRENTLY IF EXISTS endpoint_restorable", migrations.RunSQL.noop),
        AddIndexConcurrently(
            model_name="endpoint",
            index=models.Index(
                condition=models.Q(("restorable_until__isnull", False)),
                fields=["restorable_until"],
                name="endpoint_restorable",
            ),
        ),
    ]
