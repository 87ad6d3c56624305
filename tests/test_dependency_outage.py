"""Dependencies that are away, and come back, while real processes carry the card desk's runs: none fails, none is lost."""

from typing import Any

import httpx2
import pytest
from django.contrib.auth.models import User

from agentops.outside import Outside
from reviews import decisions
from reviews.models import Review
from runs import audit, commands, dependencies, event_log
from runs.models import BreakerChange, Run, held
from runs.models.event import Event
from runs.reliability import terms
from tests.desk import known
from tests.processes import eventually, process

RUNS = 6


def started() -> list[Run]:
    """Of customers whose card can be blocked."""
    message = "My card was stolen yesterday, please block it at once"
    customers = [name for name in (f"C-{number}" for number in range(1010, 1030)) if known(name).active_cards()]
    given = [{"message": message, "customer": customer} for customer in customers[:RUNS]]
    return [commands.start("card-desk", one, by="operator") for one in given]


def approve(reviewer: User) -> None:
    for review in Review.objects.filter(state="open", cause="gated"):
        decisions.decide(review.pk, actor=reviewer, kind="approve", seen=review.fingerprint, reason="it was stolen")


@pytest.mark.django_db(transaction=True)
def test_runs_wait_for_what_is_switched_off_or_fails_and_all_of_them_end(
    classifier: object, demo_bank: None, outside: Outside, people: dict[str, User]
) -> None:
    runs = started()
    dependencies.configure("bank", by="admin", enabled=False)
    terms.of("card-processor")
    wanted = {"breaker_minimum_calls": 3, "breaker_open_seconds": 1.0, "retry_attempts": 20, "retry_longest_wait_seconds": 2}
    dependencies.configure("card-processor", by="admin", **wanted)
    httpx2.post(f"{outside.url}/faults", json={"kind": "503", "path": "/v1/cards", "count": 1000}).raise_for_status()
    with process("rqworker", "default", CARD_PROCESSOR_URL=outside.url), process("sweeper"):
        eventually(lambda: held.counts() == {"bank": RUNS})
        assert not Run.objects.exclude(lease_owner="").exists(), "no process is held"
        dependencies.configure("bank", by="admin", enabled=True)

        def breaker_holds_them_back() -> bool:
            approve(people["reviewer"])
            parked = Event.objects.filter(kind="RunParked", data__cause="breaker")
            return parked.values("run").distinct().count() >= RUNS - 1

        eventually(breaker_holds_them_back)
        assert BreakerChange.objects.filter(old="closed", new="open").count() == 1
        httpx2.delete(f"{outside.url}/faults").raise_for_status()
        eventually(lambda: Run.objects.filter(status="succeeded").count() == RUNS)
    assert BreakerChange.objects.filter(new="closed").count() == 1
    for run in runs:
        assert audit.first_wrong(run.pk) == ""
        facts = event_log.facts(run.pk)
        assert {fact.data["cause"] for fact in facts if fact.kind == "RunParked"} <= {
            "switched_off",
            "person",
            "breaker",
            "retry",
        }
        woken = [fact for fact in facts if fact.kind == "RunWoken"]
        assert woken, "it did not have to wait for its time"
    done: Any = httpx2.get(f"{outside.url}/seen").json()
    assert sum(done["effects"].values()) == RUNS, "however often it was tried, each card was blocked once"
