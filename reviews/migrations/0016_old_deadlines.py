"""Reviews opened before the inbox say by when they must be decided, as the events of their steps do."""

from django.db import migrations

FILL = """
    UPDATE reviews_review AS review SET due_at = (event.data->>'deadline')::timestamptz FROM runs_event AS event
    WHERE review.state = 'open' AND review.due_at IS NULL AND event.run_id = review.run_id AND event.step = review.position
    AND event.kind = 'StepEscalated' AND event.at = review.opened_at AND event.data->>'deadline' IS NOT NULL
"""


class Migration(migrations.Migration):
    dependencies = [("reviews", "0015_groups_stay")]

    operations = [migrations.RunSQL(FILL, migrations.RunSQL.noop)]
