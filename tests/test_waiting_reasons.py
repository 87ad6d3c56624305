"""Why a run or a step waits, in one sentence: every case of the sentence, and what is looked up for it."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import django_rq
import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from redis import Redis
from rq import Queue, Worker

from reviews.models import Claim, Review
from runs import commands, describe, dispatch, executor, waiting
from runs.engine.events import Kind
from runs.models import Run, Step
from runs.reasons import HELD_BACK, Wait, step_waits
from runs.reasons import waiting as why
from runs.sdk import Run as Handle
from runs.sdk import TryLater, agent, ask_human, call, worker
from tests.agents import Answer, Choice, Order

# --- the sentence -------------------------------------------------------------------------------------------------------

AT = datetime.now(UTC).replace(hour=12, minute=30, second=5, microsecond=0)
LATER = AT + timedelta(days=400)
PAY = Step(position=2, title="Pay", cause="gated")
FAILED = Step(position=2, title="Pay", error={"message": "TryLater: the bank is busy.\nTrace"})
SHOP = "shop takes 5 requests in 60 s, and 5 are used."


def at(cause: str, status: str = "waiting", **columns: Any) -> Run:
    return Run(status=status, waiting_cause=cause, **({"wake_at": AT} | columns))


def timed(sentence: str) -> str:
    """AT, as sentences say it at this moment: the day may have changed since these cases were written down."""
    moment = describe.when(AT)
    return re.sub(r"\bAT\b", moment, sentence.replace("until AT", f"until {moment.removeprefix('at ')}"))


def queued() -> Run:
    return at("", "queued", wake_at=None)


@pytest.mark.parametrize(
    ("run", "wait", "sentence"),
    [
        (at("", "succeeded", wake_at=None), Wait(), ""),
        (at("", "partial", wake_at=None), Wait(), ""),
        (at("", "running", lease_until=LATER, lease_owner="w1"), Wait(), ""),
        (at("", "running", lease_until=AT - timedelta(days=1), lease_owner="w1"), Wait(),
         "Its job process w1 has gone silent: another takes over within seconds, if one is running."),
        (at("", "running", cancel_requested=True), Wait(),
         f"It is being cancelled: its present step may take another {settings.CANCEL_SECONDS:g} s, then it is cut off."),
        (queued(), Wait(), "It waits for a free job process."),
        (at("", "queued", wake_at=LATER), Wait(),
         f"The decision can still be taken back: it is carried out at {LATER:%Y-%m-%d} 12:30 UTC."),
        (queued(), Wait(before=0, processes=2), "It is the next that a free job process takes."),
        (queued(), Wait(before=1, processes=2), "It waits for a free job process: 1 run stands before it."),
        (queued(), Wait(before=1200, processes=2), "It waits for a free job process: 1,200 runs stand before it."),
        (queued(), Wait(before=3, processes=0), "No job process is running: it waits until an engineer starts one."),
        (queued(), Wait(no_queue=True), "Redis, which has the queue, does not answer: it goes on when Redis is back."),
        (at("limit"), Wait(PAY, why=SHOP, late=True, no_queue=True),
         f"Step 2 (Pay) is held back. {SHOP} It tries again AT. That time has passed. Redis, which has the queue, "
         "does not answer: it goes on when Redis is back."),
        (at("retry", "retrying"), Wait(PAY, late=True, processes=0),
         "It tries step 2 (Pay) again AT. That time has passed. No job process is running: it waits until an "
         "engineer starts one."),
        (at("retry", "retrying"), Wait(FAILED),
         "It tries step 2 (Pay) again AT, which failed: the bank is busy. Trace."),
        (at("retry", "retrying"), Wait(FAILED, late=True, before=1, processes=2),
         "It tries step 2 (Pay) again AT, which failed: the bank is busy. Trace. That time has passed. It waits for a free job "
         "process: 1 run stands before it."),
        (at("timer"), Wait(late=True, processes=2),
         "It waits and goes on AT. That time has passed. The sweeper, which wakes it, has not done so yet."),
        (at("children", waiting_runs=[7]), Wait(open_children=1, late=True, processes=2),
         "It waits for the run that it started."),
        (at("retry", "retrying"), Wait(PAY), "It tries step 2 (Pay) again AT."),
        (at("retry", "retrying"), Wait(), "It waits and goes on AT."),
        (at("retry", "retrying", wake_at=None), Wait(PAY), "It tries step 2 (Pay) again soon."),
        (at("timer"), Wait(), "It waits and goes on AT."),
        (at("timer", wake_at=LATER), Wait(), f"It waits and goes on at {LATER:%Y-%m-%d} 12:30 UTC."),
        (at("later"), Wait(PAY), "Step 2 (Pay) said that it is too early: it is called again AT."),
        (at("later"), Wait(PAY, why="no file"),
         "Step 2 (Pay) said that it is too early (no file): it is called again AT."),
        (at("children", waiting_runs=[7]), Wait(open_children=1), "It waits for the run that it started."),
        (at("children", waiting_runs=list(range(12))), Wait(open_children=3), "It waits for 3 of the 12 runs that it started."),
        (at("", "running", wake_at=None), Wait(PAY, why=SHOP), f"Step 2 (Pay) is held back for a moment. {SHOP}"),
        (at("limit"), Wait(PAY, why=SHOP), f"Step 2 (Pay) is held back. {SHOP} It tries again AT."),
        (at("limit"), Wait(PAY, why=SHOP, others=("bank",)),
         f"Step 2 (Pay) is held back. {SHOP} Other steps wait for bank. It tries again AT."),
        (at("limit"), Wait(PAY, why=SHOP, others=("bank", "mail", "model", "post")),
         f"Step 2 (Pay) is held back. {SHOP} Other steps wait for bank, mail and 2 more. It tries again AT."),
        *[(at(cause), Wait(PAY), f"Step 2 (Pay) is held back. {words} It tries again AT.")
          for cause, words in HELD_BACK.items() if cause != "budget"],
        (at("person", wake_at=None), Wait(PAY), "It waits for a person at step 2 (Pay): a person must approve it first."),
        (at("person", wake_at=None), Wait(), "It waits for a person."),
        (at("person", wake_at=None), Wait(PAY, asked=3), "It waits for a person at 3 steps."),
        (at("person"), Wait(PAY, expires=True),
         "It waits for a person at step 2 (Pay): a person must approve it first. It goes on without an answer AT."),
        (at("person"), Wait(PAY, asked=2), "It waits for a person at 2 steps. It goes on with another step AT."),
        (at("person", wake_at=None), Wait(PAY, claimed=(("ada", AT),)),
         "It waits for a person at step 2 (Pay): a person must approve it first. ada is at it until AT."),
    ],
)  # fmt: skip
def test_why_a_run_waits(run: Run, wait: Wait, sentence: str) -> None:
    assert why(run, wait) == timed(sentence)


@pytest.mark.parametrize("cause", list(describe.CAUSES))
def test_what_a_person_is_asked_is_told_for_every_cause(cause: str) -> None:
    run, step = at("person", wake_at=None), Step(position=2, title="Pay", cause=cause)
    assert why(run, Wait(step)) == f"It waits for a person at step 2 (Pay): {describe.CAUSES[cause]}."


@pytest.mark.parametrize(
    ("kind", "data", "sentence"),
    [
        (Kind.ATTEMPT_FAILED, {"wake_at": AT.isoformat()}, "It is tried again AT."),
        (Kind.ATTEMPT_FAILED, {}, "It is tried again soon."),
        (Kind.STEP_PARKED, {"cause": "timer", "wake_at": AT.isoformat()}, "It goes on AT."),
        (Kind.STEP_PARKED, {"cause": "children"}, "It waits for other runs."),
        (Kind.STEP_DEFERRED, {"why": SHOP, "dependency": "shop", "wake_at": AT.isoformat()},
         f"It is held back. {SHOP} It tries again AT."),
        (Kind.STEP_DEFERRED, {"why": "no file", "wake_at": AT.isoformat()},
         "It is too early (no file): it is called again AT."),
        (Kind.STEP_DEFERRED, {"why": "", "wake_at": AT.isoformat()}, "It is too early: it is called again AT."),
        (Kind.STEP_ESCALATED, {}, ""),
    ],
)  # fmt: skip
def test_why_a_step_waits(kind: str, data: dict[str, Any], sentence: str) -> None:
    assert step_waits(kind, data) == timed(sentence)


# --- what is looked up ------------------------------------------------------------------------------------------------------

DOES: dict[str, Callable[..., Any]] = {}


@worker(uses="counter", attempts=5)
def work(text: str) -> str:
    return str(DOES["work"](text))


@agent("reasons", title="Reasons", version="1")
def reasons(run: Handle, order: Order) -> Answer:
    """Does what the test has put into DOES."""
    return Answer(said=str(DOES["supervisor"](run)))


@pytest.fixture
def client(people: dict[str, User]) -> Client:
    made = Client()
    made.force_login(people["reviewer"])
    return made


def carried(supervisor: Callable[[Handle], Any], does: Callable[..., Any] = str) -> Run:
    DOES["supervisor"], DOES["work"] = supervisor, does
    run = commands.start("reasons", {"text": "hello"}, by="operator")
    executor.advance(run.pk, owner="test")
    run.refresh_from_db()
    return run


def later(text: str) -> str:
    raise TryLater(600, why=f"no file for {text}")


def busy(text: str) -> str:
    raise TryLater(f"{text} is busy", retry_after=600)


def one(run: Handle) -> str:
    return run.step("work", work, text="shop")


def asks(run: Handle) -> str:
    return str(run.step("ask", ask_human(Choice, within=3600), question="Which?"))


def sleeps(run: Handle) -> None:
    run.sleep("rest", 600)


def delegates(run: Handle) -> None:
    run.join(*run.spawn_many("children", "counting", [{"text": "a"}, {"text": "b"}]))


def plain(page: str) -> str:
    """Without the elements that make times count."""
    return re.sub("</?time[^>]*>", "", page)


def sentence(run: Run) -> str:
    return waiting.answer(run).sentence


def test_a_time_of_another_day_is_said_with_its_day() -> None:
    noon = datetime.now(UTC).replace(hour=12, minute=3, second=4)
    assert describe.when(noon) == "at 12:03:04 UTC"
    assert describe.when(noon + timedelta(days=1)) == f"at {noon + timedelta(days=1):%Y-%m-%d} 12:03 UTC"


@pytest.mark.django_db
def test_each_wait_is_told_with_its_cause_and_time(people: dict[str, User]) -> None:
    run = carried(one, later)
    assert sentence(run) == (
        f"Step 1 (Work) said that it is too early (no file for shop): it is called again {describe.when(run.wake_at)}."
    )
    told = f"It is too early (no file for shop): it is called again {describe.when(run.wake_at)}."
    assert waiting.steps(run.pk, run.steps.all()) == {1: (told, run.wake_at)}
    run = carried(one, busy)
    assert sentence(run) == f"It tries step 1 (Work) again {describe.when(run.wake_at)}, which failed: shop is busy."
    run = carried(sleeps)
    assert sentence(run) == f"It waits and goes on {describe.when(run.wake_at)}."
    run = carried(delegates)
    assert sentence(run) == "It waits for 2 of the 2 runs that it started."
    executor.advance(run.children.order_by("pk")[0].pk, owner="test")
    assert sentence(run) == "It waits for 1 of the 2 runs that it started."
    assert sentence(carried(lambda run: "done")) == ""


@pytest.mark.django_db
def test_who_is_at_the_review_and_until_when_is_told_while_the_claim_holds(people: dict[str, User], client: Client) -> None:
    run, until = carried(asks), timezone.now() + timedelta(minutes=5)
    Claim.objects.create(review=Review.objects.get(), reviewer=people["reviewer2"], until=until)
    told = (
        "It waits for a person at step 1 (Ask a person): the agent asks a person. "
        f"reviewer2 is at it until {describe.when(until).removeprefix('at ')}. "
        f"It goes on without an answer {describe.when(run.wake_at)}."
    )
    assert sentence(run) == told
    assert told in plain(client.get(f"/runs/{run.pk}/").text)
    Claim.objects.update(until=timezone.now() - timedelta(seconds=1))
    assert "reviewer2" not in sentence(run)


@pytest.mark.django_db(transaction=True)
def test_a_queued_run_knows_its_place_and_whether_a_job_process_is_there(people: dict[str, User]) -> None:
    first, second = (commands.start("counting", {"text": "a"}, by="operator") for _ in range(2))
    assert "No job process is running" in sentence(second)
    redis = django_rq.get_connection("default")
    process = Worker(["default"], connection=redis, name="there")
    process.register_birth()
    process.heartbeat()
    assert sentence(first) == "It is the next that a free job process takes."
    assert sentence(second) == "It waits for a free job process: 1 run stands before it."
    silent = timezone.now() - 2 * dispatch.SILENT_AFTER
    redis.hset(process.key, "last_heartbeat", silent.strftime("%Y-%m-%dT%H:%M:%S.%fZ"))
    assert "No job process is running" in sentence(second)


@pytest.mark.django_db
def test_a_time_that_has_passed_is_not_told_as_if_it_were_to_come(
    people: dict[str, User], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = carried(sleeps)
    assert "passed" not in sentence(run)
    run.wake_at = timezone.now() - timedelta(minutes=1)
    assert sentence(run).endswith(". That time has passed. No job process is running: it waits until an engineer starts one.")
    nobody = Queue(connection=Redis(host="127.0.0.1", port=1))
    monkeypatch.setattr(dispatch, "_queue_at", lambda url: nobody)
    assert sentence(run).endswith(" Redis, which has the queue, does not answer: it goes on when Redis is back.")


@pytest.mark.django_db
def test_lists_tell_it_of_each_run_and_ask_the_database_the_same_for_few_and_many(client: Client) -> None:
    kinds = [(one, later), (one, busy), (asks, str), (sleeps, str), (delegates, str)]

    def grow() -> list[Run]:
        return [carried(*kind) for kind in kinds]

    def asked(url: str) -> tuple[int, str]:
        with CaptureQueriesContext(connection) as queries:
            page = plain(client.get(url).text)
        return len(queries), page

    grow()
    urls = ["/runs/", "/", "/agents/reasons/"]
    client.get("/runs/")
    before = {url: asked(url)[0] for url in urls}
    runs = [run for _ in range(2) for run in grow()]
    for url in urls:
        number, page = asked(url)
        assert number == before[url], url
        for run in runs:
            assert sentence(run) in page, (url, run.waiting_cause)


@pytest.mark.django_db
def test_each_step_of_a_run_that_waits_for_several_says_why(client: Client) -> None:
    def both(run: Handle) -> list[str]:
        return run.gather(call("one", work, text="shop"), call("two", work, text="bank"))

    run = carried(both, lambda text: later(text) if text == "shop" else busy(text))
    page = client.get(f"/runs/{run.pk}/").text
    assert f'datetime="{run.wake_at.astimezone(UTC).isoformat()}"' in page, "it counts"
    page = plain(page)
    assert "It is too early (no file for shop): it is called again at" in page
    assert "It is tried again at" in page


@pytest.mark.django_db(transaction=True)
def test_the_command_line_says_why_a_run_waits(people: dict[str, User], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "enqueue_now", lambda calls: [executor.advance(call.run_id, owner="test") for call in calls])
    out = StringIO()
    call_command("run_agent", "asking", "--input", '{"text": "a"}', "--wait", stdout=out)
    assert "It waits for a person at step 1 (Ask a person): the agent asks a person." in out.getvalue()
