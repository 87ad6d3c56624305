"""A letter in one form takes nothing away from what was typed into another."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("reviews", "0021_history_of_an_agent")]

    operations = [
        migrations.RemoveConstraint(model_name="draft", name="draft_once"),
        migrations.AddConstraint(
            model_name="draft",
            constraint=models.UniqueConstraint(fields=("review", "reviewer", "kind"), name="draft_of_kind_once"),
        ),
    ]
