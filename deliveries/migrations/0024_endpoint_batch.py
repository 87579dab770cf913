from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("deliveries", "0023_summaries")]

    operations = [migrations.AddField("endpoint", "batch", models.JSONField(blank=True, null=True))]
