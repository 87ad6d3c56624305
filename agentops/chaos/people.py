"""The people of a trial: they keep errands going and answer whatever is asked, always the same to the same question."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from django.contrib.auth.models import User
from django.db import Error as DatabaseError
from django.db import connection

from agentops import people as accounts
from agentops.chaos import ledger
from agentops.chaos.agents import PAID
from reviews import decisions
from reviews.models import Review
from runs import commands, dispatch, event_log
from runs.models import Run
from runs.requests import request

ERRAND = "chaos-errand"


class People:
    """`kinds` errands differ; after those they begin again, so that every result has its like in the reference."""

    def __init__(self, phase: str, kinds: int, at_once: int) -> None:
        self.phase, self.kinds, self.at_once = phase, kinds, at_once
        self.wanted = 0
        self.started = 0
        self.errors = 0  # commands that ended in an error of the database
        self.wrong_errors = 0  # those of which the work had happened all the same
        self._in_doubt: Callable[[], bool] | None = None  # whether the work of the command that ended in an error has happened
        self.outcomes_are_certain = True  # False while a process that is only paused may still do what it began
        self.code_has_changed = False  # True while the code does not fit: who is asked about that waits
        self.leave_alone: set[str] = set()  # agents whose reviews nobody decides now
        self.change_their_minds = False  # cancel every tenth errand once, and retry it
        self._cancelled: set[int] = set()

    def work(self) -> None:
        """Start what is wanted and decide what waits. Who meets a database that is away tries again later."""
        try:
            self._look_what_happened()
            self._start()
            self._change_minds()
            reviews = Review.objects.open().select_related("run").exclude(run__agent__in=["chaos-poison", *self.leave_alone])
            for review in reviews:
                self._decide(review)
        except DatabaseError:
            self.errors += 1
            connection.close()

    def runs(self, agent: str = ERRAND) -> Any:
        """Of this phase."""
        return Run.objects.filter(agent=agent, input__phase=self.phase)

    def done(self) -> bool:
        return self.started >= self.wanted and self._ended() >= self.wanted

    def keep_busy(self) -> None:
        """Want more errands where there are not enough under way for a fault to hit."""
        self.wanted = max(self.wanted, self._ended() + self.at_once)

    def start(self, agent: str, count: int) -> list[int]:
        """Other runs than errands, at once."""
        there = self.runs(agent).count()
        given = [{"phase": self.phase, "which": which, "number": which} for which in range(there, there + count)]
        return [commands.start(agent, one, by="operator").pk for one in given]

    def start_together(self, agent: str, count: int) -> list[int]:
        """The same for many: they begin in one transaction, as children do."""
        there = self.runs(agent).count()
        given = [{"phase": self.phase, "which": which, "number": which} for which in range(there, there + count)]
        logs = event_log.create_all([request(agent, one, by="operator") for one in given])
        dispatch.enqueue_now([dispatch.Call(log.run_id, log.state.seq) for log in logs])
        return [log.run_id for log in logs]

    def decide_about(self, agent: str, count: int) -> list[tuple[int, int]]:
        """Decide the oldest reviews of that agent; the runs, and the event that each has come to."""
        reviews = Review.objects.open().select_related("run").filter(run__in=self.runs(agent)).order_by("pk")[:count]
        for review in reviews:
            self._decide(review)
        return list(Run.objects.filter(pk__in=[review.run_id for review in reviews]).values_list("pk", "last_seq"))

    def _ended(self) -> int:
        return int(self.runs().filter(status="succeeded").count())

    def _start(self) -> None:
        """What was started is counted in the database: an answer that got lost does not say that nothing happened."""
        self.started = self.runs().count()
        under_way = self.started - self._ended()
        for _ in range(min(self.at_once - under_way, self.wanted - self.started)):
            errand = {"phase": self.phase, "which": self.started, "number": self.started % self.kinds}
            there = self.runs().filter(input__which=self.started)
            self._command(partial(commands.start, ERRAND, errand, by="operator"), there.exists)
            self.started += 1

    def _change_minds(self) -> None:
        if not self.change_their_minds:
            return
        for run in self.runs().exclude(status__in=["succeeded", "failed"]).exclude(pk__in=self._cancelled):
            if run.input["which"] % 10 == 9:
                self._cancelled.add(run.pk)
                wanted = Run.objects.filter(pk=run.pk, cancel_requested=True)
                with suppress(commands.Refused):  # it has ended meanwhile
                    self._command(partial(commands.cancel, run.pk, by="operator", reason="changed their mind"), wanted.exists)
        for run_id in self.runs().filter(status="cancelled").values_list("pk", flat=True):
            retried = Run.objects.filter(pk=run_id).exclude(status="cancelled")
            with suppress(commands.Refused):
                self._command(partial(commands.retry, run_id, by="operator"), retried.exists)

    def _decide(self, review: Review) -> None:
        kind, value = self._answer(review)
        if kind:
            said = {"actor": _somebody(), "kind": kind, "seen": review.fingerprint, "value": value, "reason": "as in every trial"}
            decided = Review.objects.filter(pk=review.pk, state="decided")
            with suppress(commands.Refused, decisions.Conflict):  # it was withdrawn meanwhile
                self._command(partial(decisions.decide, review.pk, **said), decided.exists)

    def _command(self, carry_out: Callable[[], object], has_happened: Callable[[], bool]) -> None:
        try:
            carry_out()
        except DatabaseError:
            self._in_doubt = has_happened
            raise

    def _look_what_happened(self) -> None:
        """Before anything else is done: whether the last error was shown for work that had happened."""
        if self._in_doubt:
            self.wrong_errors += self._in_doubt()
            self._in_doubt = None

    def _answer(self, review: Review) -> tuple[str, Any]:
        """The decision and its value; "" to look again later."""
        if review.cause in ("gated", "low_confidence"):
            return "approve", None
        if review.cause == "question":
            return "answer", {"colour": "green"}
        if review.cause == "code_changed":
            return ("", None) if self.code_has_changed else ("retry", None)
        if review.cause == "outcome_unknown" and not self.outcomes_are_certain:
            return "", None
        if review.cause == "outcome_unknown" and ledger.happened(f"{review.run_id}:pay"):
            return "happened", PAID.format((review.run.input or {})["number"])
        return "retry", None


def _somebody() -> User:
    return accounts.ensure_account("reviewer", "not used")
