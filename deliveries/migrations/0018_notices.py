import django.db.models.deletion
import django.db.models.functions.datetime
import django.db.models.manager
from django.db import migrations, models

import tenants.ids


class Migration(migrations.Migration):
    dependencies = [("deliveries", "0017_work_on_lists")]

    operations = [
        migrations.AddField("announcement", "reported_at", models.DateTimeField(editable=False, null=True)),
        # The table is new with the release that brings this: nothing is in it to wait for.
        migrations.AddIndex(
            "announcement",
            models.Index(
                condition=models.Q(("reported_at__isnull", True)),
                fields=["id"],
                name="announcement_unreported",
            ),
        ),
        migrations.CreateModel(
            name="SlackHook",
            fields=[
                (
                    "tenant",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="+",
                        serialize=False,
                        to="tenants.tenant",
                    ),
                ),
                ("encrypted", models.BinaryField()),
                (
                    "updated_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
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
        migrations.CreateModel(
            name="Notice",
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
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="tenants.tenant",
                    ),
                ),
                (
                    "channel",
                    models.CharField(choices=[("email", "e-mail"), ("slack", "Slack")], max_length=8),
                ),
                ("recipient", models.CharField(blank=True, default="", max_length=254)),
                ("language", models.CharField(blank=True, default="", max_length=8)),
                ("facts", models.JSONField()),
                ("tries", models.PositiveSmallIntegerField(default=0)),
                ("error", models.CharField(blank=True, default="", max_length=200)),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
                (
                    "next_try_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
                ("sent_at", models.DateTimeField(editable=False, null=True)),
                ("failed_at", models.DateTimeField(editable=False, null=True)),
            ],
            options={
                "indexes": [
                    models.Index(fields=["tenant", "-created_at"], name="notice_by_tenant"),
                    models.Index(
                        condition=models.Q(("failed_at__isnull", True), ("sent_at__isnull", True)),
                        fields=["next_try_at", "id"],
                        name="notice_due",
                    ),
                ],
            },
        ),
    ]
