from django.contrib.postgres.indexes import GinIndex
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("tenants", "0013_replies_of_batches")]

    operations = [
        # What an interrupted run of this migration left.
        migrations.RunSQL("DROP INDEX CONCURRENTLY IF EXISTS idempotency_by_events", migrations.RunSQL.noop),
        AddIndexConcurrently(
            model_name="idempotencyrecord",
            index=GinIndex(
                condition=models.Q(("event_ids__isnull", False)),
                fields=["event_ids"],
                name="idempotency_by_events",
            ),
        ),
    ]
