import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    """Words of the code alone: no table is touched."""

    dependencies = [("runs", "0029_retention_is_watched")]

    operations = [
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.AlterField(
                    "pruning", "head_hash", models.CharField(default="", help_text="Of its last tombstone.", max_length=64)
                ),
                migrations.AlterField(
                    "pruning",
                    "wrong",
                    models.TextField(db_default="", default="", help_text="What was found to be wrong with its tombstones."),
                ),
                migrations.AlterField(
                    "tombstone",
                    "pruning",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="tombstones",
                        to="runs.pruning",
                    ),
                ),
            ],
        ),
    ]
