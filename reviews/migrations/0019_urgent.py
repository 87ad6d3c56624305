"""What is pressed for time comes before its like."""

from django.db import migrations, models

HALF_HAS_PASSED = """
    UPDATE reviews_review SET urgent = true
    WHERE state = 'open' AND due_at IS NOT NULL AND opened_at + (due_at - opened_at) / 2 <= now()
"""


class Migration(migrations.Migration):
    dependencies = [("reviews", "0018_given_up")]

    operations = [
        migrations.AddField(
            model_name="review",
            name="urgent",
            field=models.BooleanField(default=False, help_text="Half of its time has passed: it comes before its like."),
        ),
        migrations.RunSQL(HALF_HAS_PASSED, migrations.RunSQL.noop),
        migrations.RemoveIndex(model_name="review", name="review_inbox"),
        migrations.AddIndex(
            model_name="review",
            index=models.Index(
                condition=models.Q(("state", "open")), fields=["-risk", "-urgent", "opened_at", "id"], name="review_in_turn"
            ),
        ),
    ]
