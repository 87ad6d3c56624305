"""The question put to a person, who is at it, and the answer."""

from reviews.models.bulk import BulkDecision, BulkItem
from reviews.models.claim import Claim
from reviews.models.decision import Decision
from reviews.models.preference import Preference
from reviews.models.review import Cause, Review, ReviewQuerySet, Risk

__all__ = ["BulkDecision", "BulkItem", "Cause", "Claim", "Decision", "Preference", "Review", "ReviewQuerySet", "Risk"]
