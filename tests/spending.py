"""What tests of budgets stand on: a run that calls a model so often, and what was counted for it."""

from decimal import Decimal
from pathlib import Path
from typing import Any

from django.contrib.auth.models import User

from reviews import decisions
from reviews.models import Review
from runs import audit, commands, event_log, executor
from runs.engine import budget
from runs.models import Budget, Run


def started(text: str, number: int, ledger: Path | str = "", *, agent: str = "consuming", **limits: Any) -> Run:
    if limits:
        commands.configure(agent, by="admin", **limits)
    return commands.start(agent, {"text": text, "number": number, "ledger": str(ledger)}, by="operator")


def advanced(run: Run) -> Run:
    """Carry the run, if need be after the time for which it is parked."""
    executor.advance(run.pk, owner="test")
    run.refresh_from_db()
    assert audit.first_wrong(run.pk) == ""
    return run


def decided(kind: str, review: Review | None = None, **more: Any) -> Review:
    asked = review or Review.objects.open().get()
    actor = User.objects.get(username="reviewer")
    decisions.decide(asked.pk, actor=actor, kind=kind, seen=asked.fingerprint, **more)
    return asked


def counted(scope: str) -> dict[str, tuple[Decimal, Decimal]]:
    return {row.unit: (row.used, row.reserved) for row in Budget.objects.filter(scope=scope)}


def calls(ledger: Path) -> int:
    return sum(line.startswith("call ") for line in ledger.read_text().splitlines()) if ledger.exists() else 0


def today(agent: str = "consuming") -> str:
    return budget.day_scope(agent, event_log.now())
