from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("deliveries", "0020_usage")]

    operations = [
        migrations.AddField(
            model_name="endpoint",
            name="restorable_until",
            field=models.DateTimeField(editable=False, null=True),
        ),
        migrations.AlterField(
            model_name="job",
            name="only",
            field=models.CharField(
                choices=[
                    ("missing", "what it never got"),
                    ("missed", "what it never got, and what failed or was cancelled by disabling"),
                    ("failed", "what failed"),
                    ("all", "everything"),
                ],
                max_length=8,
            ),
        ),
    ]
