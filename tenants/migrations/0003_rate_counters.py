import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("tenants", "0002_audit_is_append_only")]

    operations = [
        migrations.CreateModel(
            name="RateCounter",
            fields=[
                ("key", models.CharField(max_length=255, primary_key=True, serialize=False)),
                ("started_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("count", models.PositiveIntegerField()),
            ],
        ),
        # Every request under a rate limit writes here: no write-ahead log, so no flush; and room to update in place.
        migrations.RunSQL(
            """
            ALTER TABLE tenants_ratecounter SET UNLOGGED;
            ALTER TABLE tenants_ratecounter SET (fillfactor = 50);
            """,
            migrations.RunSQL.noop,
        ),
    ]
