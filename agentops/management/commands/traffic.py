"""Keeps plausible runs going, so that every page can be looked at in motion: messages, faults outside, people who decide."""

import json
import random
import signal
import time
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException  # noqa: TID251 - our own stand-in for the outside world, asked for faults
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.core.management.base import BaseCommand, CommandError, CommandParser
from pydantic import ValidationError

from agentops.outside import noted
from agentops.seeding import desk, story
from reviews import decisions
from reviews.models import Review
from runs import commands, describe
from runs.models import Run, RunStatus

MOST_QUEUED = 500  # more wait already: the job processes are behind
CONSIDERED = 20  # of the open reviews, the oldest
AGE_SECONDS = 5.0  # nobody decides sooner
FAULT_EVERY_SECONDS = 45.0
FAULTS = ("503", "429", "latency", "reset", "malformed")
KINDS = {"approve": 80, "retry": 30, "reject": 15}  # how often each is chosen, where it is allowed
CHANCE = random.Random()  # noqa: S311 - not for secrets
REASONS = ("It is not what the customer asks for.", "The customer has called meanwhile.", "Done by hand.")


@dataclass
class Told:
    """What was done so far."""

    started: int = 0
    decided: int = 0
    faults: int = field(default=0)

    def __str__(self) -> str:
        return f"{describe.runs(self.started)} started, {self.decided} reviews decided, {self.faults} faults planned outside."


class Command(BaseCommand):
    help = (
        "Start runs of the card desk on real messages until Ctrl-C, have the stand-in for the outside world fail now and then, "
        "and decide some reviews as people would. `up` runs beside it. For development only."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--rate", type=_amount, default=1.0, help="runs a second (default 1)")
        parser.add_argument("--decide", type=_amount, default=0.3, help="decisions for each run that is started (default 0.3)")
        parser.add_argument("--seconds", type=_amount, help="end after so long; without it, at Ctrl-C")
        parser.add_argument(
            "--outside",
            default="",
            help="the stand-in for the outside world; without it, that of `up` in this checkout",
        )

    def handle(self, *, rate: float, decide: float, seconds: float | None, outside: str, **options: Any) -> None:
        if settings.PRODUCTION:
            raise CommandError("traffic starts runs on sample messages and decides reviews: it is not for production.")
        people = list(User.objects.filter(username__in=desk.REVIEWERS))
        if not people:
            raise CommandError("There are no sample accounts that could decide: run `manage.py seed` first.")
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        told = Told()
        try:
            self._go_on(told, rate, decide, time.monotonic() + seconds if seconds is not None else None, outside, people)
        except KeyboardInterrupt:
            self.stdout.write("")
        self.stdout.write(str(told))

    def _go_on(self, told: Told, rate: float, decide: float, end: float | None, outside: str, people: list[User]) -> None:
        fault_at = time.monotonic() + FAULT_EVERY_SECONDS / 3
        while end is None or time.monotonic() < end:
            if Run.objects.filter(status=RunStatus.QUEUED)[:MOST_QUEUED].count() < MOST_QUEUED:
                _start()
                told.started += 1
            told.decided += CHANCE.random() < decide and _decide(CHANCE.choice(people))
            if time.monotonic() > fault_at:
                told.faults += self._fail(outside)
                fault_at = time.monotonic() + CHANCE.expovariate(1 / FAULT_EVERY_SECONDS)
            time.sleep(min(10.0, CHANCE.expovariate(rate)))

    def _fail(self, outside: str) -> bool:
        """Have some of the next calls fail. Where the stand-in cannot be reached, that is said, and the traffic goes on.

        It is looked up each time: `up` puts it on another port when it starts again.
        """
        outside = outside or noted() or settings.CARD_PROCESSOR_URL
        asked = {"kind": CHANCE.choice(FAULTS), "count": CHANCE.randint(2, 10), "seconds": 1.0}
        address = urlsplit(outside)
        try:
            with closing(HTTPConnection(address.hostname or "", address.port, timeout=5)) as connection:
                connection.request("POST", "/faults", json.dumps(asked), {"Content-Type": "application/json"})
                return connection.getresponse().status < 300
        except (OSError, HTTPException, ValueError) as error:
            self.stderr.write(f"No fault was planned at {outside or 'no address'}: {error}. Give its address with --outside.")
            return False


def _amount(text: str) -> float:
    number = float(text)
    if not 0 < number <= 1000:
        raise ValueError(text)
    return number


_amount.__name__ = "number from 0 to 1,000"  # as argparse names it


def _start() -> None:
    message = CHANCE.choice(desk.messages())
    try:
        by, tags = CHANCE.choice(("operator", "admin")), story.tags(CHANCE)
        commands.start(desk.AGENT, {"message": message.text}, by=by, tags=tags)
    except commands.Refused as refused:
        raise CommandError(f"No run was started. {refused}") from refused


def _decide(actor: User) -> bool:
    """One of the oldest that this person may decide with a click; whether it was decided."""
    waited = [one for one in Review.objects.open().in_turn()[:CONSIDERED] if _age(one) > AGE_SECONDS]
    if not waited:
        return False
    review = CHANCE.choice(waited)
    kinds = {kind: often for kind, often in KINDS.items() if kind in review.allowed}
    if not kinds:
        return False
    (kind,) = CHANCE.choices(list(kinds), list(kinds.values()))
    reason = {"reject": CHANCE.choice(REASONS), "approve": "It is what the customer asks for."}.get(kind, "")
    try:
        decisions.decide(review.pk, actor=actor, kind=kind, seen=review.fingerprint, reason=reason)
    except (decisions.Conflict, decisions.Stale, commands.Refused, PermissionDenied, ValidationError):
        return False  # somebody was first, or it is not for this person: others may decide it
    return True


def _age(review: Review) -> float:
    return time.time() - review.opened_at.timestamp()
