"""The history of an agent that decides little is found without reading that of all."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("reviews", "0020_endings")]

    operations = [
        migrations.AddIndex(
            model_name="review",
            index=models.Index(fields=["agent"], name="review_by_agent"),
        ),
    ]
