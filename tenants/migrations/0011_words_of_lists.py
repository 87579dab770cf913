from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("tenants", "0010_people_looks_and_notifications"),
    ]

    operations = [
        migrations.AlterModelOptions(
            name="apikey",
            options={"verbose_name_plural": "API keys"},
        ),
        migrations.AlterModelOptions(
            name="auditentry",
            options={"verbose_name_plural": "audit entries"},
        ),
    ]
