from django.db import migrations, models

from deliveries.partitioned_index import AddPartitionedIndexConcurrently


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("deliveries", "0024_endpoint_batch")]

    operations = [
        AddPartitionedIndexConcurrently(
            model_name="delivery",
            index=models.Index(
                condition=models.Q(("last_outcome", "succeeded")),
                fields=["tenant", "id"],
                name="delivery_succeeded",
            ),
        ),
    ]
