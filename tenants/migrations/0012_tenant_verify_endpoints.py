from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("tenants", "0011_words_of_lists")]

    operations = [
        migrations.AddField(
            "tenant", "verify_endpoints", models.BooleanField(db_default=False, default=False)
        ),
    ]
