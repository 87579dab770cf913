from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("deliveries", "0026_rollups")]

    operations = [migrations.AddField("event", "traceparent", models.CharField(max_length=55, null=True))]
