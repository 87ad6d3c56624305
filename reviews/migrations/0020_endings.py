"""What came of a review that nobody decided: by the clock, by a change of the code, or by the end of its run."""

from django.db import migrations, models

ENDINGS = [
    ("approve", "Nobody decided in time, so the clock approved it, as its policy says"),
    ("skip", "Nobody decided in time, so the step was skipped, as its policy says"),
    ("expire", "Nobody decided in time, and the run went on without an answer"),
    ("code_changed", "The code changed, so this question no longer stands: another asks how the run goes on"),
    ("run_ended", "The run was cancelled or has ended, so nobody need answer any more"),
]


class Migration(migrations.Migration):
    dependencies = [("reviews", "0019_urgent")]

    operations = [
        migrations.AddField(
            model_name="review",
            name="ending",
            field=models.CharField(choices=ENDINGS, default="", help_text="What came of it where nobody decided.", max_length=20),
        ),
    ]
