"""Tags of runs: those of before have none, and the code of before writes none."""

import django.contrib.postgres.fields
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("runs", "0034_an_alert_ends"),
    ]

    operations = [
        migrations.AddField(
            model_name="run",
            name="tags",
            field=django.contrib.postgres.fields.ArrayField(
                base_field=models.CharField(max_length=40), db_default=[], help_text="By which people find it again.", size=None
            ),
        ),
    ]
