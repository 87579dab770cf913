from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("deliveries", "0022_endpoints_to_forget")]

    operations = [
        migrations.AddField("notice", "summary_on", models.DateField(null=True)),
        # A small table, emptied after a month.
        migrations.AddConstraint(
            "notice",
            models.UniqueConstraint(
                condition=models.Q(("summary_on__isnull", False)),
                fields=("tenant", "recipient", "summary_on"),
                name="notice_summary_once",
            ),
        ),
    ]
