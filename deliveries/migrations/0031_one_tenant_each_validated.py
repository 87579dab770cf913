from django.db import migrations


class Migration(migrations.Migration):
    """Of the rows that are there. Readers and writers go on meanwhile."""

    dependencies = [("deliveries", "0030_one_tenant_each")]

    operations = [
        migrations.RunSQL(
            """
            ALTER TABLE deliveries_sourcetoken VALIDATE CONSTRAINT sourcetoken_same_tenant;
            ALTER TABLE deliveries_job VALIDATE CONSTRAINT job_same_tenant;
            ALTER TABLE deliveries_jobpart VALIDATE CONSTRAINT jobpart_same_tenant;
            ALTER TABLE deliveries_pollconsumer VALIDATE CONSTRAINT pollconsumer_same_tenant;
            """,
            migrations.RunSQL.noop,
        )
    ]
