"""The question put to a person, who is at it, and the answer."""

from reviews.models.bulk import BulkDecision, BulkItem
from reviews.models.claim import Claim
from reviews.models.decision import Decision
from reviews.models.draft import Draft
from reviews.models.history import RemovedReview, ReviewEvent
from reviews.models.notice import Channel, Notice, NoticeSettings, Pace
from reviews.models.preference import Preference
from reviews.models.presence import Presence
from reviews.models.review import Cause, Review, ReviewQuerySet, Risk
from reviews.models.route import Route
from reviews.models.search import SearchText
from reviews.models.view import SavedView

__all__ = [
    "BulkDecision",
    "BulkItem",
    "Cause",
    "Channel",
    "Claim",
    "Decision",
    "Draft",
    "Notice",
    "NoticeSettings",
    "Pace",
    "Preference",
    "Presence",
    "RemovedReview",
    "Review",
    "ReviewEvent",
    "ReviewQuerySet",
    "Risk",
    "Route",
    "SavedView",
    "SearchText",
]
