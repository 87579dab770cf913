import django.db.models.deletion
import django.db.models.functions.datetime
import django.db.models.manager
from django.db import migrations, models

import tenants.ids


class Migration(migrations.Migration):
    dependencies = [("deliveries", "0010_lane_health")]

    operations = [
        migrations.CreateModel(
            name="Announcement",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=tenants.ids.new_id, editable=False, primary_key=True, serialize=False
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="tenants.tenant",
                    ),
                ),
                (
                    "endpoint",
                    models.ForeignKey(
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="deliveries.endpoint",
                    ),
                ),
                ("delivery_id", models.UUIDField(null=True)),
                ("kind", models.CharField(max_length=32)),
                ("data", models.JSONField(default=dict)),
                ("is_quiet", models.BooleanField(db_default=False)),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
                ("published_at", models.DateTimeField(editable=False, null=True)),
                ("notified_at", models.DateTimeField(editable=False, null=True)),
            ],
            options={
                "abstract": False,
                "base_manager_name": "unscoped",
                "default_manager_name": "unscoped",
                "indexes": [
                    models.Index(fields=["tenant", "-id"], name="announcement_by_tenant"),
                    models.Index(
                        condition=models.Q(("published_at__isnull", True)),
                        fields=["id"],
                        name="announcement_unpublished",
                    ),
                    models.Index(
                        condition=models.Q(("notified_at__isnull", True)),
                        fields=["id"],
                        name="announcement_unnotified",
                    ),
                ],
            },
            managers=[("unscoped", django.db.models.manager.Manager())],
        ),
    ]
