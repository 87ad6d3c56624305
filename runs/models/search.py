"""What a search for text looks through."""

from django.contrib.postgres.indexes import GinIndex
from django.db import connection, models

from runs.models.content import ContentText


class SearchText(models.Model):
    """Input, output and error of a run, in small letters; the sweeper writes it, so a run is found a moment after it was written.

    Apart from Run, because each change of a run's status would write the large index again; and not by a trigger, for which
    every append would wait (a fifth of what a run of ten steps takes).
    """

    run = models.OneToOneField(
        "runs.Run", on_delete=models.CASCADE, primary_key=True, related_name="search_text", db_constraint=False
    )
    text = ContentText()
    ended_at = models.DateTimeField(null=True, help_text="When the run ended with the output that is in the text.")

    class Meta:
        indexes = [
            # a part of a word is found too: three letters each, not words
            GinIndex(fields=["text"], opclasses=["gin_trgm_ops"], name="run_text_trigrams"),
            models.Index(fields=["ended_at"], name="run_text_ended", condition=models.Q(ended_at__isnull=False)),
        ]

    def __str__(self) -> str:
        return str(self.text)[:80]


# Its own rows say how far it is; what was committed later than its like is looked for so far back. Cut: an input may have 10 MB.
FILL = """
INSERT INTO runs_searchtext (run_id, text, ended_at)
SELECT id, lower(left(concat_ws(' ', error ->> 'message', input_text, input::text, output::text), 4000)), finished_at FROM (
  (SELECT run.* FROM runs_run AS run LEFT JOIN runs_searchtext AS there ON there.run_id = run.id
   WHERE run.id > (SELECT coalesce(max(run_id), 0) FROM runs_searchtext) - 2000 AND there.run_id IS NULL
   ORDER BY run.id LIMIT %(most)s)
  UNION ALL
  (SELECT run.* FROM runs_run AS run JOIN runs_searchtext AS there ON there.run_id = run.id
   WHERE run.finished_at > coalesce((SELECT max(ended_at) FROM runs_searchtext), '-infinity') - interval '5 minutes'
     AND there.ended_at IS DISTINCT FROM run.finished_at
   ORDER BY run.finished_at LIMIT %(most)s)
) AS new
ON CONFLICT (run_id) DO UPDATE SET text = excluded.text, ended_at = excluded.ended_at
"""
AT_ONCE = 1000


def fill() -> int:
    """Take in what is new: how many texts were written, at most twice AT_ONCE."""
    with connection.cursor() as cursor:
        cursor.execute(FILL, {"most": AT_ONCE})
        return int(cursor.rowcount)
