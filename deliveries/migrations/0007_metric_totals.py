from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("deliveries", "0006_lane_pace")]

    operations = [
        migrations.CreateModel(
            name="MetricTotal",
            fields=[
                ("key", models.CharField(max_length=100, primary_key=True, serialize=False)),
                ("value", models.FloatField()),
            ],
        ),
        # A hundred rows, each written every few seconds by every process.
        migrations.RunSQL(
            "ALTER TABLE deliveries_metrictotal SET (fillfactor = 20, autovacuum_vacuum_scale_factor = 0,"
            " autovacuum_vacuum_threshold = 1000)",
            migrations.RunSQL.noop,
        ),
    ]
