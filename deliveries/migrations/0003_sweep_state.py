from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("deliveries", "0002_history_by_week")]

    operations = [
        migrations.CreateModel(
            name="SweepState",
            fields=[
                ("id", models.SmallIntegerField(default=1, primary_key=True, serialize=False)),
                ("repaired_at", models.DateTimeField()),
                ("walked_to", models.UUIDField()),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(condition=models.Q(("id", 1)), name="sweep_state_is_one_row")
                ],
            },
        ),
        migrations.RunSQL(
            "INSERT INTO deliveries_sweepstate VALUES (1, now(), '00000000-0000-0000-0000-000000000000')",
            migrations.RunSQL.noop,
        ),
    ]
