"""Keeps runs from retention: holds them, and releases them again."""

from django.db import IntegrityError, transaction

from runs.clock import now
from runs.engine.canonical import clean
from runs.models import Hold, Run
from runs.requests import Refused

REASON_LETTERS = 300


def hold(run_id: int, *, by: str, reason: str) -> None:
    """Retention keeps the run, with all that are related to it, until somebody releases it.

    Raises Run.DoesNotExist, and Refused without a reason or where it is held already.
    """
    if not (why := clean(reason.strip(), REASON_LETTERS)):
        raise Refused("Say why the run must be kept: whoever may release it later will want to know.")
    try:
        with transaction.atomic():
            Run.objects.select_for_update(no_key=True).only("pk").get(pk=run_id)  # retention removes it before, or not at all
            Hold.objects.create(run_id=run_id, by=by, reason=why)
    except IntegrityError as error:
        raise Refused(f"Run {run_id} is held already.") from error


def release(run_id: int, *, by: str) -> None:
    """From now on it is kept no longer than others. Raises Refused where nobody holds it."""
    if not Hold.objects.filter(run=run_id, released_at=None).update(released_by=by, released_at=now()):
        raise Refused(f"Nobody holds run {run_id}, so there is nothing to release.")
