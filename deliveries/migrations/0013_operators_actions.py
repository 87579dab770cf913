import django.db.models.functions.datetime
from django.db import migrations, models

import tenants.ids


class Migration(migrations.Migration):
    dependencies = [("deliveries", "0012_indexes_of_health")]

    operations = [
        migrations.CreateModel(
            name="BulkAction",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=tenants.ids.new_id, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("action", models.CharField(max_length=32)),
                ("selection", models.JSONField()),
                ("arguments", models.JSONField(default=dict)),
                ("actor_id", models.CharField(max_length=64)),
                ("actor_label", models.CharField(max_length=254)),
                ("remote_ip", models.GenericIPAddressField(null=True)),
                ("request_id", models.CharField(blank=True, default="", max_length=128)),
                (
                    "status",
                    models.CharField(
                        choices=[("running", "running"), ("done", "done"), ("cancelled", "cancelled")],
                        default="running",
                        max_length=9,
                    ),
                ),
                ("total", models.PositiveIntegerField()),
                ("done", models.PositiveIntegerField(default=0)),
                ("refused", models.PositiveIntegerField(default=0)),
                ("reasons", models.JSONField(default=dict)),
                ("problems", models.JSONField(default=list)),
                ("cursor", models.UUIDField(null=True)),
                (
                    "heartbeat_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
                ("completed_at", models.DateTimeField(editable=False, null=True)),
            ],
            options={
                "indexes": [
                    models.Index(
                        condition=models.Q(("status", "running")),
                        fields=["heartbeat_at"],
                        name="bulk_action_running",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="MetricSample",
            fields=[
                ("at", models.DateTimeField(primary_key=True, serialize=False)),
                ("totals", models.JSONField()),
            ],
        ),
    ]
