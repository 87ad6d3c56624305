"""The question put to a person, who is at it, and the answer."""

from reviews.models.claim import Claim
from reviews.models.decision import Decision
from reviews.models.review import Cause, Review, ReviewQuerySet, Risk

__all__ = ["Cause", "Claim", "Decision", "Review", "ReviewQuerySet", "Risk"]
