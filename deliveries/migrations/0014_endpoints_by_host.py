from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models

import deliveries.models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("deliveries", "0013_operators_actions")]

    operations = [
        # What an interrupted run of this migration left.
        migrations.RunSQL("DROP INDEX CONCURRENTLY IF EXISTS endpoint_by_host", migrations.RunSQL.noop),
        AddIndexConcurrently(
            model_name="endpoint",
            index=models.Index(
                deliveries.models.ReversedHost("url"),
                models.F("id"),
                condition=models.Q(("deleted_at__isnull", True)),
                name="endpoint_by_host",
            ),
        ),
    ]
