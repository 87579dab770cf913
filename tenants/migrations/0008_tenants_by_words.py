import django.contrib.postgres.indexes
import django.contrib.postgres.search
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("tenants", "0007_support_sessions")]

    operations = [
        # What an interrupted run of this migration left.
        migrations.RunSQL("DROP INDEX CONCURRENTLY IF EXISTS tenant_by_words", migrations.RunSQL.noop),
        AddIndexConcurrently(
            model_name="tenant",
            index=django.contrib.postgres.indexes.GinIndex(
                django.contrib.postgres.search.SearchVector("name", "slug", config="simple"),
                name="tenant_by_words",
            ),
        ),
    ]
