from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("deliveries", "0005_jobs")]

    operations = [
        migrations.AddField("lane", "tokens", models.FloatField(db_default=0.0)),
        migrations.AddField("lane", "tokens_at", models.DateTimeField(null=True)),
    ]
