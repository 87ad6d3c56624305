"""A look at a sample may be open beside a question about the same step; the open reviews of an agent are counted."""

from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    dependencies = [("reviews", "0011_drafts")]

    operations = [
        migrations.RemoveConstraint(model_name="review", name="review_open_once"),
        migrations.AddConstraint(
            model_name="review",
            constraint=models.UniqueConstraint(
                fields=["run", "position"], condition=Q(state="open") & ~Q(cause="sample"), name="review_open_once"
            ),
        ),
        migrations.AddIndex(
            model_name="review",
            index=models.Index(fields=["agent", "cause"], condition=Q(state="open"), name="review_of_agent"),
        ),
    ]
