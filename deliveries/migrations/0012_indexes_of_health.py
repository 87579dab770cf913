from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("deliveries", "0011_announcements")]

    operations = [
        # What an interrupted run of this migration left.
        migrations.RunSQL("DROP INDEX CONCURRENTLY IF EXISTS lane_failing", migrations.RunSQL.noop),
        AddIndexConcurrently(
            model_name="lane",
            index=models.Index(
                condition=models.Q(("failing_since__isnull", False)),
                fields=["failing_since", "endpoint"],
                name="lane_failing",
            ),
        ),
        migrations.RunSQL("DROP INDEX CONCURRENTLY IF EXISTS subscription_exhausted", migrations.RunSQL.noop),
        AddIndexConcurrently(
            model_name="subscription",
            index=models.Index(
                condition=models.Q(("event_type__in", ["delivery.*", "delivery.exhausted"])),
                fields=["tenant"],
                name="subscription_exhausted",
            ),
        ),
    ]
