from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("tenants", "0005_tenant_erased_at")]

    operations = [
        migrations.AddField("tenant", "weight", models.PositiveSmallIntegerField(db_default=1, default=1)),
        migrations.AddConstraint(
            "tenant",
            models.CheckConstraint(condition=models.Q(weight__gte=1, weight__lte=100), name="tenant_weight"),
        ),
        migrations.AddIndex(
            "tenant",
            models.Index(fields=["id"], condition=~models.Q(weight=1), name="tenant_weighted"),
        ),
    ]
