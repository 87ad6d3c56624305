from django.db import migrations

# What the trigger of 0025 writes, for open reviews and those that have an error. Not by an update of the reviews, which would
# hold up whoever decides one; and in a migration of its own, so that nobody waits for the lock of the trigger meanwhile.
AGAIN = """
INSERT INTO reviews_searchtext (review_id, text)
SELECT review.id, lower(left(concat_ws(' ', review.title, left(review.why, 1000), left(step.error ->> 'message', 1000),
  run.input_text, review.proposal::text, given.words), 4000))
FROM reviews_review AS review JOIN runs_run AS run ON run.id = review.run_id
  LEFT JOIN runs_step AS step ON step.run_id = review.run_id AND step.position = review.position,
  LATERAL (SELECT string_agg(value #>> '{}', ' ') AS words FROM jsonb_path_query(
    CASE WHEN pg_column_size(run.input) < 4000 THEN run.input END, 'strict $.**') AS value
    WHERE jsonb_typeof(value) IN ('string', 'number')) AS given
WHERE review.state = 'open' OR review.cause IN ('failed', 'outcome_unknown')
ON CONFLICT (review_id) DO UPDATE SET text = excluded.text
"""


class Migration(migrations.Migration):

    dependencies = [
        ('runs', '0032_a_reveal_is_of_an_account'),
        ('reviews', '0025_search_of_errors'),
    ]

    operations = [
        migrations.RunSQL(AGAIN, migrations.RunSQL.noop),
    ]
