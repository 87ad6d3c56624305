"""The people of a trial: they keep errands going and answer whatever is asked, always the same to the same question."""

from typing import Any

from django.contrib.auth.models import User
from django.db import Error as DatabaseError
from django.db import connection

from agentops import people as accounts
from agentops.chaos import ledger
from agentops.chaos.agents import PAID
from reviews import decisions
from reviews.models import Review
from runs import commands
from runs.models import Run

AT_ONCE = 6  # errands under way


class People:
    """`kinds` errands differ; after those they begin again, so that every result has its like in the reference."""

    def __init__(self, phase: str, kinds: int) -> None:
        self.phase, self.kinds = phase, kinds
        self.wanted = 0
        self.started = 0
        self.outcomes_are_certain = True  # False while a process that is only paused may still do what it began

    def work(self) -> None:
        """Start what is wanted and decide what waits. Who meets a database that is away tries again later."""
        try:
            self._start()
            for review in Review.objects.open().select_related("run"):
                self._decide(review)
        except DatabaseError:
            connection.close()

    def runs(self) -> Any:
        return Run.objects.filter(input__phase=self.phase)

    def done(self) -> bool:
        return self.started >= self.wanted and self.runs().ended().count() >= self.wanted

    def keep_busy(self) -> None:
        """Want more errands where there are not enough under way for a fault to hit."""
        self.wanted = max(self.wanted, self.runs().ended().count() + AT_ONCE)

    def _start(self) -> None:
        """What was started is counted in the database: an answer that got lost does not say that nothing happened."""
        self.started = self.runs().count()
        under_way = self.started - self.runs().ended().count()
        for _ in range(min(AT_ONCE - under_way, self.wanted - self.started)):
            errand = {"phase": self.phase, "which": self.started, "number": self.started % self.kinds}
            commands.start("chaos-errand", errand, by="operator")
            self.started += 1

    def _decide(self, review: Review) -> None:
        kind, value = self._answer(review)
        if kind:
            actor = _somebody()
            decisions.decide(review.pk, actor=actor, kind=kind, seen=review.fingerprint, value=value, reason="as in every trial")

    def _answer(self, review: Review) -> tuple[str, Any]:
        """The decision and its value; "" to look again later."""
        if review.cause in ("gated", "low_confidence"):
            return "approve", None
        if review.cause == "question":
            return "answer", {"colour": "green"}
        if review.step_name == "pay" and not self.outcomes_are_certain:
            return "", None
        if review.step_name == "pay" and happened(f"{review.run_id}:pay"):
            return "edit", PAID.format((review.run.input or {})["number"])
        return "retry", None


def happened(key: str) -> bool:
    """What somebody finds out who looks it up outside."""
    return any(line["key"] == key for line in ledger.lines())


def _somebody() -> User:
    return accounts.ensure_account("reviewer", "not used")
