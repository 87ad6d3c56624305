"""What a reviewer has typed and not sent: kept until they decide, also when somebody else was first."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models.functions import Now
from django.http import QueryDict
from django.utils import timezone

from reviews.models import Decision, Draft, Review, Risk
from runs import commands, sdk
from runs.engine.canonical import Unstorable, stored
from runs.engine.policy import Subject
from runs.forms import SchemaForm
from runs.models.content import are_hidden

NOT_TYPED = ("csrfmiddlewaretoken", "seen", "opened", "checked", "check", "more")
LETTERS = 200_000
KEPT_FOR, MOST_AT_ONCE = timedelta(days=30), 1000  # of closed reviews, each minute


def save(review: Review, reviewer: User, typed: QueryDict) -> None:
    """Keep the form as it is. Raises commands.Refused for what cannot be kept."""
    data = _fields(typed)
    if sum(map(len, data.values())) > LETTERS:
        raise commands.Refused(f"The draft is longer than {LETTERS:,} letters, so it was not kept.")
    try:
        kind, kept = str(data.pop("decision", ""))[:20], {"data": stored(data), "saved_at": timezone.now()}
    except Unstorable as error:
        raise commands.Refused(str(error)) from error
    Draft.objects.update_or_create(review=review, reviewer=reviewer, kind=kind, defaults=kept)


def save_while_open(review: Review, reviewer: User, typed: QueryDict) -> None:
    """The same while somebody types; what is on its way when the review is decided comes too late to be a draft."""
    with transaction.atomic():
        if Review.objects.open().select_for_update().filter(pk=review.pk).values_list("pk", flat=True).first():
            save(review, reviewer, typed)


def bring_back(decision: Decision) -> None:
    """What somebody had sent is their draft again, now that it was taken back; what they have typed since stays."""
    if are_hidden() or (decision.kind == Decision.Kind.APPROVE and decision.review.risk != Risk.HIGH):
        return  # it is not told to whoever took it back, or its form asks for nothing
    data = _as_typed(decision) | {name: said for name in ("reason", "tag") if (said := getattr(decision, name))}
    if data:
        about: dict[str, Any] = {"review": decision.review, "reviewer": decision.actor, "kind": decision.kind}
        if not Draft.objects.filter(**about, saved_at__gt=decision.decided_at).exists():
            Draft.objects.update_or_create(**about, defaults={"data": data, "saved_at": timezone.now()})


def _as_typed(decision: Decision) -> dict[str, str]:
    """Its value in the fields of its form, where it carries one and the code still knows its type."""
    review, worker = decision.review, sdk.find_worker(decision.review.worker)
    if decision.kind not in Decision.CARRIES_VALUE or worker is None:
        return {}
    is_input = commands.value_of(decision.kind, review.subject) == Subject.INPUT
    schema = worker.input_model.model_json_schema() if is_input else worker.output.json_schema()
    return SchemaForm(schema, check=lambda value: value, initial=decision.value).as_typed()


def of(review: Review, reviewer: User) -> list[Draft]:
    """One for each form into which something was typed, the last first."""
    return list(Draft.objects.filter(review=review, reviewer=reviewer).order_by("-saved_at", "-pk"))


def discard(review: Review, reviewer: User) -> None:
    Draft.objects.filter(review=review, reviewer=reviewer).delete()


def prune() -> None:
    """What nobody will send any more, since its review was closed, is deleted some time."""
    old = Draft.objects.filter(saved_at__lt=Now() - KEPT_FOR).exclude(review__state=Review.State.OPEN)
    Draft.objects.filter(pk__in=old.values("pk")[:MOST_AT_ONCE]).delete()


def _fields(typed: QueryDict) -> dict[str, str]:
    return {name: value for name, value in typed.items() if name not in NOT_TYPED and isinstance(value, str)}


def typed(draft: Draft) -> Mapping[str, Any]:
    """By the names of its fields, for people."""
    return {name.removeprefix("value."): value for name, value in draft.data.items() if value}
