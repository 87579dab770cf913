from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("tenants", "0001_initial")]

    operations = [
        # Entries go only with their tenant, when its rows are erased: the purge says so for its own transaction.
        migrations.RunSQL(
            """
            CREATE FUNCTION tenants_audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                IF TG_OP = 'DELETE' AND current_setting('webhooks.purging', true) = 'yes' THEN
                    RETURN OLD;
                END IF;
                RAISE EXCEPTION 'audit entries are append-only' USING ERRCODE = 'restrict_violation';
            END $$;
            CREATE TRIGGER audit_is_append_only BEFORE UPDATE OR DELETE ON tenants_auditentry
                FOR EACH ROW EXECUTE FUNCTION tenants_audit_is_append_only();
            """,
            """
            DROP TRIGGER audit_is_append_only ON tenants_auditentry;
            DROP FUNCTION tenants_audit_is_append_only();
            """,
        ),
        migrations.RunSQL(
            "INSERT INTO tenants_platformstate (id, shared_version, is_sending_stopped) VALUES (1, 1, false)",
            "DELETE FROM tenants_platformstate",
        ),
    ]
