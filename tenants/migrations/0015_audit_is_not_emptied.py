from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("tenants", "0014_replies_of_batches_by_event")]

    operations = [
        # The trigger of rows is not asked by TRUNCATE.
        migrations.RunSQL(
            """
            CREATE TRIGGER audit_is_not_emptied BEFORE TRUNCATE ON tenants_auditentry
                FOR EACH STATEMENT EXECUTE FUNCTION tenants_audit_is_append_only();
            """,
            "DROP TRIGGER audit_is_not_emptied ON tenants_auditentry;",
        ),
    ]
