from django.db import migrations, models


class Migration(migrations.Migration):
    """What the composite foreign keys of tokens and parts are to refer to; the next migration makes constraints of it."""

    atomic = False

    dependencies = [("deliveries", "0028_endpoints_disabled_by_the_platform")]

    operations = [
        # What an interrupted run of this migration left.
        migrations.RunSQL("DROP INDEX CONCURRENTLY IF EXISTS source_id_with_tenant", migrations.RunSQL.noop),
        migrations.RunSQL(
            "CREATE UNIQUE INDEX CONCURRENTLY source_id_with_tenant ON deliveries_source (id, tenant_id)",
            "DROP INDEX CONCURRENTLY IF EXISTS source_id_with_tenant",
            state_operations=[
                migrations.AddConstraint(
                    model_name="source",
                    constraint=models.UniqueConstraint(fields=("id", "tenant"), name="source_id_with_tenant"),
                )
            ],
        ),
        migrations.RunSQL("DROP INDEX CONCURRENTLY IF EXISTS job_id_with_tenant", migrations.RunSQL.noop),
        migrations.RunSQL(
            "CREATE UNIQUE INDEX CONCURRENTLY job_id_with_tenant ON deliveries_job (id, tenant_id)",
            "DROP INDEX CONCURRENTLY IF EXISTS job_id_with_tenant",
            state_operations=[
                migrations.AddConstraint(
                    model_name="job",
                    constraint=models.UniqueConstraint(fields=("id", "tenant"), name="job_id_with_tenant"),
                )
            ],
        ),
    ]
