import django.db.models.deletion
import django.db.models.functions.datetime
import django.db.models.manager
from django.conf import settings
from django.db import migrations, models

import tenants.ids


class Migration(migrations.Migration):
    dependencies = [("tenants", "0006_tenant_weight")]

    operations = [
        migrations.CreateModel(
            name="SupportSession",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=tenants.ids.new_id, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("reason", models.CharField(blank=True, default="", max_length=200)),
                ("expires_at", models.DateTimeField()),
                ("ended_at", models.DateTimeField(editable=False, null=True)),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="tenants.tenant",
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "abstract": False,
                "base_manager_name": "unscoped",
                "default_manager_name": "unscoped",
            },
            managers=[("unscoped", django.db.models.manager.Manager())],
        ),
    ]
