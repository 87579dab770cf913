from django.db import migrations, models

FORMATS = [
    ("standard", "Standard"),
    ("raw", "Raw"),
    ("cloudevents", "Cloudevents"),
    ("cloudevents-binary", "Cloudevents Binary"),
    ("xml", "Xml"),
    ("form", "Form"),
]


class Migration(migrations.Migration):
    dependencies = [("deliveries", "0008_paused_lanes")]

    operations = [
        migrations.AddField("endpoint", "signature_template", models.JSONField(blank=True, null=True)),
        migrations.AddField(
            "endpoint", "template_secret_encrypted", models.BinaryField(editable=False, null=True)
        ),
        # Wider alone: no row is written anew.
        migrations.AlterField(
            "endpoint", "format", models.CharField(choices=FORMATS, default="standard", max_length=20)
        ),
    ]
