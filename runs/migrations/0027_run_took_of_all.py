"""The index by how long a run took is of all runs: PostgreSQL does not look into a partial one for how its values lie."""

import django.contrib.postgres.operations
import django.db.models.expressions
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False  # no lock that runs would wait for

    dependencies = [
        ('runs', '0026_bulk_actions'),
    ]

    operations = [
        django.contrib.postgres.operations.RemoveIndexConcurrently(
            model_name='run',
            name='run_took',
        ),
        django.contrib.postgres.operations.AddIndexConcurrently(
            model_name='run',
            index=models.Index(django.db.models.expressions.CombinedExpression(models.F('finished_at'), '-', models.F('created_at')), name='run_took'),
        ),
    ]
