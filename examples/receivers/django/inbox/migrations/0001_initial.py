from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Webhook",
            fields=[
                ("id", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("event", models.JSONField()),
                ("received_at", models.DateTimeField(auto_now_add=True)),
                ("done_at", models.DateTimeField(null=True)),
            ],
            options={
                "indexes": [
                    models.Index(
                        models.F("received_at"),
                        condition=models.Q(("done_at", None)),
                        name="webhooks_to_act_on",
                    )
                ],
            },
        ),
    ]
