from django.db import migrations


class Migration(migrations.Migration):
    """A row of one tenant cannot hang on something of another: the pair is what is referred to. New rows alone are
    looked at here, which takes no time; those that are there, in the next migration, which locks nobody out.
    """

    dependencies = [("deliveries", "0029_pairs_of_sources_and_jobs")]

    operations = [
        migrations.RunSQL(
            """
            ALTER TABLE deliveries_source ADD CONSTRAINT source_id_with_tenant UNIQUE USING INDEX source_id_with_tenant;
            ALTER TABLE deliveries_job ADD CONSTRAINT job_id_with_tenant UNIQUE USING INDEX job_id_with_tenant;
            ALTER TABLE deliveries_sourcetoken ADD CONSTRAINT sourcetoken_same_tenant
                FOREIGN KEY (source_id, tenant_id) REFERENCES deliveries_source (id, tenant_id)
                DEFERRABLE INITIALLY DEFERRED NOT VALID;
            ALTER TABLE deliveries_job ADD CONSTRAINT job_same_tenant
                FOREIGN KEY (endpoint_id, tenant_id) REFERENCES deliveries_endpoint (id, tenant_id)
                DEFERRABLE INITIALLY DEFERRED NOT VALID;
            ALTER TABLE deliveries_jobpart ADD CONSTRAINT jobpart_same_tenant
                FOREIGN KEY (job_id, tenant_id) REFERENCES deliveries_job (id, tenant_id)
                DEFERRABLE INITIALLY DEFERRED NOT VALID;
            ALTER TABLE deliveries_pollconsumer ADD CONSTRAINT pollconsumer_same_tenant
                FOREIGN KEY (endpoint_id, tenant_id) REFERENCES deliveries_endpoint (id, tenant_id)
                DEFERRABLE INITIALLY DEFERRED NOT VALID;
            """,
            """
            ALTER TABLE deliveries_pollconsumer DROP CONSTRAINT pollconsumer_same_tenant;
            ALTER TABLE deliveries_jobpart DROP CONSTRAINT jobpart_same_tenant;
            ALTER TABLE deliveries_job DROP CONSTRAINT job_same_tenant;
            ALTER TABLE deliveries_sourcetoken DROP CONSTRAINT sourcetoken_same_tenant;
            ALTER TABLE deliveries_job DROP CONSTRAINT job_id_with_tenant;
            ALTER TABLE deliveries_source DROP CONSTRAINT source_id_with_tenant;
            """,
        )
    ]
