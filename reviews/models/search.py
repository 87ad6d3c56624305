"""What a search for text looks through."""

from django.contrib.postgres.indexes import GinIndex
from django.db import models

from reviews.models.review import Review
from runs.models.content import ContentText


class SearchText(models.Model):
    """Title, why it is here, error, proposal, and the run's input, in small letters; a trigger of Review writes it.

    Apart from Review, because each change of a review's state would write the large index again.
    """

    # no row is written but by the trigger of the review itself, so nothing is checked twice
    review = models.OneToOneField(
        Review, on_delete=models.CASCADE, primary_key=True, related_name="search_text", db_constraint=False
    )
    text = ContentText()

    class Meta:
        indexes = [
            # a part of a word is found too: three letters each, not words
            GinIndex(fields=["text"], opclasses=["gin_trgm_ops"], name="search_text_trigrams"),
        ]

    def __str__(self) -> str:
        return str(self.text)[:80]
