from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("deliveries", "0012_indexes_of_health")]

    operations = [
        migrations.AddField("endpoint", "auth", models.JSONField(blank=True, null=True)),
        migrations.AddField("endpoint", "auth_encrypted", models.BinaryField(editable=False, null=True)),
        migrations.AddField("endpoint", "client_certificate", models.TextField(blank=True, null=True)),
        migrations.AddField(
            "endpoint", "client_key_encrypted", models.BinaryField(editable=False, null=True)
        ),
        migrations.AddField("endpoint", "ca_certificates", models.TextField(blank=True, null=True)),
    ]
