import django.contrib.postgres.indexes
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("deliveries", "0003_sweep_state")]

    operations = [
        migrations.AddIndex(
            model_name="delivery",
            index=models.Index(fields=["tenant", "event_type", "id"], name="delivery_by_type"),
        ),
        migrations.AddIndex(
            model_name="delivery",
            index=models.Index(
                condition=models.Q(("status", "succeeded"), _negated=True),
                fields=["tenant", "status", "id"],
                name="delivery_by_status",
            ),
        ),
        migrations.AddIndex(
            model_name="delivery",
            index=models.Index(
                condition=models.Q(
                    models.Q(("last_outcome", "succeeded"), _negated=True), ("last_outcome__isnull", False)
                ),
                fields=["tenant", "last_outcome", "id"],
                name="delivery_by_outcome",
            ),
        ),
        migrations.AddIndex(
            model_name="delivery",
            index=models.Index(
                condition=models.Q(("status__in", ["failed", "cancelled"])),
                fields=["endpoint", "id"],
                name="delivery_unsuccessful",
            ),
        ),
        migrations.AddIndex(
            model_name="event",
            index=models.Index(fields=["tenant", "type", "id"], name="event_by_type"),
        ),
        migrations.AddIndex(
            model_name="event",
            index=django.contrib.postgres.indexes.GinIndex(
                condition=models.Q(("channels__isnull", False)),
                fields=["channels"],
                gin_pending_list_limit=256,
                name="event_by_channel",
            ),
        ),
        migrations.AddIndex(
            model_name="event",
            index=models.Index(
                condition=models.Q(("data_erased_at__isnull", False)),
                fields=["data_erased_at"],
                name="event_erased",
            ),
        ),
    ]
