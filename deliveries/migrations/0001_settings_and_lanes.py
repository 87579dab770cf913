import django.contrib.postgres.fields
import django.db.models.deletion
import django.db.models.functions.comparison
import django.db.models.functions.datetime
import django.db.models.manager
from django.db import migrations, models

import deliveries.models
import tenants.ids


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("tenants", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="Endpoint",
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
                        on_delete=django.db.models.deletion.CASCADE, related_name="+", to="tenants.tenant"
                    ),
                ),
                ("uid", models.CharField(blank=True, max_length=255, null=True)),
                ("url", models.CharField(max_length=2048)),
                ("description", models.TextField(blank=True, default="")),
                (
                    "status",
                    models.CharField(
                        choices=[("enabled", "enabled"), ("disabled", "disabled")],
                        default="enabled",
                        max_length=8,
                    ),
                ),
                (
                    "disabled_reason",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("manual", "disabled by hand"),
                            ("gone", "the receiver answered 410 Gone"),
                            ("failing", "it failed for too long"),
                            ("receiver", "the receiver asked for it"),
                        ],
                        max_length=8,
                        null=True,
                    ),
                ),
                (
                    "channels",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=128), blank=True, null=True, size=None
                    ),
                ),
                (
                    "method",
                    models.CharField(
                        choices=[("POST", "Post"), ("PUT", "Put"), ("GET", "Get")],
                        default="POST",
                        max_length=4,
                    ),
                ),
                (
                    "format",
                    models.CharField(
                        choices=[
                            ("standard", "Standard"),
                            ("raw", "Raw"),
                            ("cloudevents", "Cloudevents"),
                            ("xml", "Xml"),
                            ("form", "Form"),
                        ],
                        default="standard",
                        max_length=12,
                    ),
                ),
                ("headers", models.JSONField(blank=True, default=dict)),
                (
                    "sensitive_headers",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=128), blank=True, default=list, size=None
                    ),
                ),
                ("sensitive_headers_encrypted", models.BinaryField(null=True)),
                (
                    "signature_scheme",
                    models.CharField(
                        choices=[("hmac-sha256", "Hmac Sha256"), ("ed25519", "Ed25519")],
                        default="hmac-sha256",
                        max_length=12,
                    ),
                ),
                (
                    "success_statuses",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=3),
                        default=deliveries.models.default_success_statuses,
                        size=None,
                    ),
                ),
                ("timeout_seconds", models.PositiveSmallIntegerField(default=15)),
                ("rate_limit", models.FloatField(blank=True, null=True)),
                ("max_in_flight", models.PositiveSmallIntegerField(default=10)),
                (
                    "ordering",
                    models.CharField(
                        choices=[("none", "None"), ("fifo", "Fifo")], default="none", max_length=4
                    ),
                ),
                (
                    "retry_schedule",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.PositiveIntegerField(), blank=True, null=True, size=None
                    ),
                ),
                ("metadata", models.JSONField(blank=True, default=dict)),
                ("is_paused", models.BooleanField(default=False)),
                ("version", models.BigIntegerField(default=1)),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
                (
                    "updated_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
                ("deleted_at", models.DateTimeField(editable=False, null=True)),
            ],
            options={
                "abstract": False,
                "base_manager_name": "unscoped",
                "default_manager_name": "unscoped",
                "indexes": [models.Index(fields=["tenant", "-id"], name="endpoint_by_tenant")],
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("deleted_at__isnull", True)),
                        fields=("tenant", "uid"),
                        name="endpoint_uid_once_per_tenant",
                    ),
                    models.UniqueConstraint(fields=("id", "tenant"), name="endpoint_id_with_tenant"),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("disabled_reason__isnull", True), ("status", "enabled")),
                            models.Q(("disabled_reason__isnull", False), ("status", "disabled")),
                            _connector="OR",
                        ),
                        name="endpoint_disabled_has_reason",
                    ),
                ],
            },
            managers=[
                ("unscoped", django.db.models.manager.Manager()),
            ],
        ),
        migrations.CreateModel(
            name="EndpointSecret",
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
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="secrets",
                        to="deliveries.endpoint",
                    ),
                ),
                (
                    "scheme",
                    models.CharField(
                        choices=[("hmac-sha256", "Hmac Sha256"), ("ed25519", "Ed25519")], max_length=12
                    ),
                ),
                ("encrypted", models.BinaryField()),
                ("public_key", models.BinaryField(null=True)),
                ("expires_at", models.DateTimeField(null=True)),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
            ],
            options={
                "abstract": False,
                "base_manager_name": "unscoped",
                "default_manager_name": "unscoped",
                "indexes": [],
                "constraints": [],
            },
            managers=[
                ("unscoped", django.db.models.manager.Manager()),
            ],
        ),
        migrations.CreateModel(
            name="Subscription",
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
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="subscriptions",
                        to="deliveries.endpoint",
                    ),
                ),
                ("event_type", models.CharField(max_length=130)),
                ("filter", models.CharField(blank=True, max_length=1024, null=True)),
                ("transformation", models.CharField(blank=True, max_length=1024, null=True)),
                ("description", models.TextField(blank=True, default="")),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
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
                "indexes": [models.Index(fields=["endpoint", "id"], name="subscription_by_endpoint")],
                "constraints": [],
            },
            managers=[
                ("unscoped", django.db.models.manager.Manager()),
            ],
        ),
        migrations.CreateModel(
            name="EndpointVersion",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
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
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="deliveries.endpoint",
                    ),
                ),
                ("settings_version", models.BigIntegerField()),
                ("snapshot", models.JSONField()),
                (
                    "created_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(), editable=False
                    ),
                ),
            ],
            options={
                "abstract": False,
                "base_manager_name": "unscoped",
                "default_manager_name": "unscoped",
                "constraints": [
                    models.UniqueConstraint(
                        fields=("tenant", "endpoint", "settings_version"), name="endpoint_version_once"
                    )
                ],
                "indexes": [],
            },
            managers=[
                ("unscoped", django.db.models.manager.Manager()),
            ],
        ),
        migrations.CreateModel(
            name="Lane",
            fields=[
                (
                    "endpoint",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="lane",
                        serialize=False,
                        to="deliveries.endpoint",
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
                ("ready_at", models.DateTimeField(null=True)),
                ("is_ready", models.BooleanField(default=False)),
                ("hold_until", models.DateTimeField(null=True)),
                ("hold_reason", models.CharField(max_length=16, null=True)),
                ("is_paused", models.BooleanField(default=False)),
                ("dispatcher_id", models.UUIDField(null=True)),
                ("slots", models.FloatField(default=2)),
            ],
            options={
                "abstract": False,
                "base_manager_name": "unscoped",
                "default_manager_name": "unscoped",
                "indexes": [
                    models.Index(
                        condition=models.Q(
                            ("dispatcher_id__isnull", True), ("is_paused", False), ("is_ready", True)
                        ),
                        fields=["tenant", "ready_at"],
                        name="lane_ready",
                    ),
                    models.Index(
                        django.db.models.functions.comparison.Greatest("ready_at", "hold_until"),
                        condition=models.Q(
                            ("dispatcher_id__isnull", True),
                            ("is_paused", False),
                            ("is_ready", False),
                            ("ready_at__isnull", False),
                        ),
                        name="lane_scheduled",
                    ),
                    models.Index(
                        condition=models.Q(("dispatcher_id__isnull", False)),
                        fields=["dispatcher_id"],
                        name="lane_by_dispatcher",
                    ),
                ],
                "constraints": [],
            },
            managers=[
                ("unscoped", django.db.models.manager.Manager()),
            ],
        ),
        migrations.CreateModel(
            name="Dispatcher",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=tenants.ids.new_id, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("alive_until", models.DateTimeField()),
                ("started_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("process", models.CharField(blank=True, default="", max_length=255)),
                ("has_room", models.BooleanField(default=True)),
                ("is_draining", models.BooleanField(default=False)),
                ("deliveries_done", models.BigIntegerField(default=0)),
            ],
            options={
                "indexes": [],
                "constraints": [],
            },
        ),
        # A row of one tenant cannot hang on an endpoint of another: the pair is what is referred to.
        migrations.RunSQL(
            """
            ALTER TABLE deliveries_endpointsecret ADD CONSTRAINT endpointsecret_same_tenant
                FOREIGN KEY (endpoint_id, tenant_id) REFERENCES deliveries_endpoint (id, tenant_id) DEFERRABLE INITIALLY DEFERRED;
            ALTER TABLE deliveries_subscription ADD CONSTRAINT subscription_same_tenant
                FOREIGN KEY (endpoint_id, tenant_id) REFERENCES deliveries_endpoint (id, tenant_id) DEFERRABLE INITIALLY DEFERRED;
            ALTER TABLE deliveries_endpointversion ADD CONSTRAINT endpointversion_same_tenant
                FOREIGN KEY (endpoint_id, tenant_id) REFERENCES deliveries_endpoint (id, tenant_id) DEFERRABLE INITIALLY DEFERRED;
            ALTER TABLE deliveries_lane ADD CONSTRAINT lane_same_tenant
                FOREIGN KEY (endpoint_id, tenant_id) REFERENCES deliveries_endpoint (id, tenant_id) DEFERRABLE INITIALLY DEFERRED;
            """,
            """
            ALTER TABLE deliveries_endpointsecret DROP CONSTRAINT endpointsecret_same_tenant;
            ALTER TABLE deliveries_subscription DROP CONSTRAINT subscription_same_tenant;
            ALTER TABLE deliveries_endpointversion DROP CONSTRAINT endpointversion_same_tenant;
            ALTER TABLE deliveries_lane DROP CONSTRAINT lane_same_tenant;
            """,
        ),
        # Lanes are updated all the time: room on the page, and vacuumed early.
        migrations.RunSQL(
            """
            ALTER TABLE deliveries_lane SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01,
                autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
            """,
            migrations.RunSQL.noop,
        ),
    ]
