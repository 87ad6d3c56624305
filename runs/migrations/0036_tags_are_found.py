"""The index of the runs that have tags."""

import django.contrib.postgres.indexes
import django.contrib.postgres.operations
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False  # no lock that runs would wait for

    dependencies = [
        ("runs", "0035_tags"),
    ]

    operations = [
        django.contrib.postgres.operations.AddIndexConcurrently(
            model_name="run",
            index=django.contrib.postgres.indexes.GinIndex(
                fields=["tags"], name="run_tags", condition=models.Q(("tags", []), _negated=True)
            ),
        ),
    ]
