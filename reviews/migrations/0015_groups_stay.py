"""The group of a review is not deleted; reviews opened before the inbox say what their step does, and are told about."""

import django.db.models.deletion
from django.db import migrations, models

# Only those from before have no `same`, and keep none: nothing is known to be identical to them.
FILL = """
    UPDATE reviews_review AS review SET effect = step.effect FROM runs_step AS step
    WHERE step.run_id = review.run_id AND step.position = review.position AND review.same = '' AND review.state = 'open';
    UPDATE reviews_review SET risk = 2 WHERE same = '' AND state = 'open' AND (effect = 'once' OR cause = 'outcome_unknown');
    UPDATE reviews_review SET tell_at = opened_at WHERE same = '' AND state = 'open' AND tell_at IS NULL;
"""


def fill(apps, schema_editor):
    with schema_editor.connection.cursor() as cursor:
        cursor.execute(FILL)


class Migration(migrations.Migration):
    dependencies = [
        ("auth", "0012_alter_user_first_name_max_length"),
        ("reviews", "0014_taken_back_by"),
    ]

    operations = [
        migrations.RunPython(fill, migrations.RunPython.noop),
        migrations.AlterField(
            model_name="review",
            name="group",
            field=models.ForeignKey(
                null=True, on_delete=django.db.models.deletion.PROTECT, related_name="reviews", to="auth.group"
            ),
        ),
        migrations.AlterField(
            model_name="review",
            name="second_group",
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, related_name="+", to="auth.group"),
        ),
        migrations.AddIndex(
            model_name="notice",
            index=models.Index(condition=models.Q(("delivery", "sent")), fields=["sent_at"], name="notice_sent"),
        ),
    ]
