from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("deliveries", "0009_signature_template")]

    operations = [
        migrations.AddField("lane", "failures", models.IntegerField(db_default=0)),
        migrations.AddField("lane", "failing_since", models.DateTimeField(null=True)),
        migrations.AddField("lane", "failed_at", models.DateTimeField(null=True)),
        migrations.AddField("lane", "is_own_failing", models.BooleanField(db_default=False)),
        migrations.AddField("lane", "pause_seconds", models.FloatField(null=True)),
        migrations.AddField("lane", "circuit_opened_at", models.DateTimeField(null=True)),
        migrations.AddField("lane", "circuit_seconds", models.FloatField(null=True)),
        migrations.AddField("lane", "warned_at", models.DateTimeField(null=True)),
        migrations.AddField("lane", "resets", models.IntegerField(db_default=0)),
        migrations.AddField("endpoint", "missed_since", models.DateTimeField(editable=False, null=True)),
    ]
