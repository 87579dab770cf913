import django.contrib.postgres.fields
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("tenants", "0012_tenant_verify_endpoints")]

    operations = [
        migrations.AddField(
            "idempotencyrecord",
            "event_ids",
            django.contrib.postgres.fields.ArrayField(base_field=models.UUIDField(), null=True, size=None),
        ),
    ]
