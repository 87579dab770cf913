import django.contrib.postgres.fields
import django.db.models.deletion
import django.db.models.functions.comparison
import django.db.models.manager
from django.db import migrations, models


class CreatePartitionedModel(migrations.CreateModel):
    """CREATE TABLE … PARTITION BY RANGE (id). Partitions are made after migrating, by `pipeline/partitions.py`."""

    def database_forwards(self, app_label, schema_editor, from_state, to_state):
        plain = schema_editor.sql_create_table
        schema_editor.sql_create_table = plain + " PARTITION BY RANGE (id)"
        try:
            super().database_forwards(app_label, schema_editor, from_state, to_state)
        finally:
            schema_editor.sql_create_table = plain


class Migration(migrations.Migration):
    dependencies = [
        ("deliveries", "0001_settings_and_lanes"),
    ]

    operations = [
        CreatePartitionedModel(
            name="Event",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                (
                    "tenant",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="tenants.tenant",
                    ),
                ),
                ("type", models.CharField(max_length=128)),
                ("occurred_at", models.DateTimeField()),
                ("data", models.BinaryField(null=True)),
                (
                    "channels",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=128), null=True, size=None
                    ),
                ),
                ("ordering_key", models.CharField(max_length=128, null=True)),
                ("sequence", models.BigIntegerField()),
                ("deliver_at", models.DateTimeField(null=True)),
                ("settings_version", models.BigIntegerField()),
                ("delivery_count", models.PositiveIntegerField()),
                ("schema_warning", models.JSONField(null=True)),
                ("hops", models.PositiveSmallIntegerField(default=0)),
                ("created_at", models.DateTimeField()),
                ("data_erased_at", models.DateTimeField(null=True)),
            ],
            options={
                "abstract": False,
                "base_manager_name": "unscoped",
                "default_manager_name": "unscoped",
                "indexes": [models.Index(fields=["tenant", "id"], name="event_by_tenant")],
                "constraints": [],
            },
            managers=[
                ("unscoped", django.db.models.manager.Manager()),
            ],
        ),
        CreatePartitionedModel(
            name="Delivery",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                (
                    "tenant",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="tenants.tenant",
                    ),
                ),
                (
                    "endpoint",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="deliveries.endpoint",
                    ),
                ),
                ("event_id", models.UUIDField()),
                ("event_type", models.CharField(max_length=128)),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("pending", "pending"),
                            ("succeeded", "succeeded"),
                            ("failed", "failed"),
                            ("cancelled", "cancelled"),
                        ],
                        default="pending",
                        max_length=9,
                    ),
                ),
                (
                    "cancel_reason",
                    models.CharField(
                        choices=[
                            ("requested", "cancelled by request"),
                            ("endpoint_disabled", "the endpoint was disabled"),
                            ("endpoint_deleted", "the endpoint was deleted"),
                            ("tenant_deleted", "the tenant was deleted"),
                            ("payload_erased", "the payload was erased"),
                            ("expired", "it waited longer than it is kept"),
                        ],
                        max_length=20,
                        null=True,
                    ),
                ),
                (
                    "trigger",
                    models.CharField(
                        choices=[
                            ("automatic", "Automatic"),
                            ("manual", "Manual"),
                            ("test", "Test"),
                            ("replay", "Replay"),
                        ],
                        default="automatic",
                        max_length=9,
                    ),
                ),
                ("subscription_id", models.UUIDField(null=True)),
                ("ordering_key", models.CharField(max_length=128, null=True)),
                ("sequence", models.BigIntegerField()),
                ("attempt_count", models.PositiveIntegerField(default=0)),
                ("schedule_step", models.PositiveSmallIntegerField(default=0)),
                ("next_attempt_at", models.DateTimeField(null=True)),
                ("manual_requested_at", models.DateTimeField(null=True)),
                ("body", models.BinaryField(null=True)),
                ("preparation_error", models.TextField(null=True)),
                ("size", models.PositiveIntegerField()),
                ("last_outcome", models.CharField(max_length=24, null=True)),
                ("last_status_code", models.PositiveSmallIntegerField(null=True)),
                ("created_at", models.DateTimeField()),
                ("completed_at", models.DateTimeField(null=True)),
            ],
            options={
                "abstract": False,
                "base_manager_name": "unscoped",
                "default_manager_name": "unscoped",
                "indexes": [
                    models.Index(
                        models.F("endpoint"),
                        django.db.models.functions.comparison.Least("next_attempt_at", "manual_requested_at"),
                        models.F("id"),
                        condition=models.Q(
                            ("status", "pending"), ("manual_requested_at__isnull", False), _connector="OR"
                        ),
                        name="delivery_due",
                    ),
                    models.Index(fields=["tenant", "id"], name="delivery_by_tenant"),
                    models.Index(fields=["endpoint", "id"], name="delivery_by_endpoint"),
                    models.Index(fields=["event_id"], name="delivery_by_event"),
                    models.Index(
                        condition=models.Q(("ordering_key__isnull", False), ("status", "pending")),
                        fields=["endpoint", "ordering_key", "sequence"],
                        name="delivery_fifo",
                    ),
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            ("status", "pending"), ("next_attempt_at__isnull", True), _connector="OR"
                        ),
                        name="delivery_ended_is_not_due",
                    )
                ],
            },
            managers=[
                ("unscoped", django.db.models.manager.Manager()),
            ],
        ),
        CreatePartitionedModel(
            name="Attempt",
            fields=[
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                (
                    "tenant",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="tenants.tenant",
                    ),
                ),
                ("delivery_id", models.UUIDField()),
                ("number", models.PositiveIntegerField()),
                (
                    "trigger",
                    models.CharField(
                        choices=[
                            ("automatic", "Automatic"),
                            ("manual", "Manual"),
                            ("test", "Test"),
                            ("replay", "Replay"),
                        ],
                        max_length=9,
                    ),
                ),
                ("started_at", models.DateTimeField()),
                ("duration_ms", models.FloatField()),
                ("dns_ms", models.FloatField(null=True)),
                ("connect_ms", models.FloatField(null=True)),
                ("tls_ms", models.FloatField(null=True)),
                ("first_byte_ms", models.FloatField(null=True)),
                ("outcome", models.CharField(max_length=24)),
                ("detail", models.TextField(default="")),
                ("status_code", models.PositiveSmallIntegerField(null=True)),
                ("remote_ip", models.GenericIPAddressField(null=True)),
                ("request_headers", models.BinaryField()),
                ("response_headers", models.BinaryField()),
                ("response_body", models.BinaryField()),
                ("is_truncated", models.BooleanField(default=False)),
            ],
            options={
                "abstract": False,
                "base_manager_name": "unscoped",
                "default_manager_name": "unscoped",
                "indexes": [models.Index(fields=["delivery_id"], name="attempt_by_delivery")],
                "constraints": [],
            },
            managers=[
                ("unscoped", django.db.models.manager.Manager()),
            ],
        ),
        migrations.RunSQL(
            """
            -- Order of publication: drawn after validation. No cache: numbers rise across processes.
            CREATE SEQUENCE deliveries_sequence AS bigint CACHE 1;
            -- Payloads are written once and read once, soon after: compressing them costs more than the disk.
            ALTER TABLE deliveries_event ALTER COLUMN data SET STORAGE EXTERNAL;
            ALTER TABLE deliveries_delivery ALTER COLUMN body SET STORAGE EXTERNAL;
            """,
            "DROP SEQUENCE deliveries_sequence",
        ),
    ]
