"""What a reviewer has typed and not sent: kept until they decide, also when somebody else was first."""

from collections.abc import Mapping
from typing import Any

from django.contrib.auth.models import User
from django.http import QueryDict
from django.utils import timezone

from reviews.models import Draft, Review
from runs import commands
from runs.engine.canonical import Unstorable, stored

NOT_TYPED = ("csrfmiddlewaretoken", "seen", "checked", "check", "more")
LETTERS = 200_000


def save(review: Review, reviewer: User, typed: QueryDict) -> None:
    """Keep the form as it is. Raises commands.Refused for what cannot be kept."""
    data = _fields(typed)
    if sum(map(len, data.values())) > LETTERS:
        raise commands.Refused(f"The draft is longer than {LETTERS:,} letters, so it was not kept.")
    try:
        kept = {"kind": str(data.pop("decision", ""))[:20], "data": stored(data), "saved_at": timezone.now()}
    except Unstorable as error:
        raise commands.Refused(str(error)) from error
    Draft.objects.update_or_create(review=review, reviewer=reviewer, defaults=kept)


def of(review: Review, reviewer: User) -> Draft | None:
    return Draft.objects.filter(review=review, reviewer=reviewer).first()


def discard(review: Review, reviewer: User) -> None:
    Draft.objects.filter(review=review, reviewer=reviewer).delete()


def _fields(typed: QueryDict) -> dict[str, str]:
    return {name: value for name, value in typed.items() if name not in NOT_TYPED and isinstance(value, str)}


def typed(draft: Draft) -> Mapping[str, Any]:
    """By the names of its fields, for people."""
    return {name.removeprefix("value."): value for name, value in draft.data.items() if value}
