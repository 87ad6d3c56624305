"""Dependencies: rows that appear at first sight, that an admin changes, and that say whether a step may call out now."""

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import redis
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection
from django.test import Client
from redis.backoff import NoBackoff
from redis.retry import Retry

from reviews import decisions
from runs import audit, commands, dependencies, event_log, executor
from runs.engine.errors import AskHuman, GiveUp, HeldBack, TryLater
from runs.models import BreakerChange, Dependency, Run, held
from runs.reliability import entry, guard, limiter, renewer, slots, store, terms
from runs.requests import Refused
from runs.sdk import BadDeclaration, StepContext, agent, executing, worker
from runs.sdk import Run as Handle
from tests.agents import Answer, Order
from tests.processes import ROOT, environment, eventually

DOES: dict[str, Callable[[], Any]] = {}


@worker(uses=("shop", "post"))
def buy(text: str) -> str:
    return str(DOES["buy"]())


@worker(uses=("shop", "post"), effect="once")
def buy_once(text: str) -> str:
    return str(DOES["buy"]())


@worker
def forgets(text: str) -> str:
    return str(DOES["buy"]())


WORKERS = {"buy": buy, "once": buy_once, "forgets": forgets}


@agent("buying", title="Buying", version="1")
def buying(run: Handle, order: Order) -> Answer:
    """Buys, with the worker that its text names."""
    return Answer(said=run.step("buy", WORKERS[order.text], text=order.text))


def call(dependency: str = "shop", result: Any = "bought") -> Any:
    return guard.call(dependency, lambda: result)


def fail(error: Exception) -> Any:
    def raises() -> None:
        raise error

    return guard.call("shop", raises)


def carried(text: str, buys: Callable[[], Any] = call) -> Run:
    DOES["buy"] = buys
    run = commands.start("buying", {"text": text}, by="operator")
    return again(run)


def again(run: Run) -> Run:
    """Carry the run, if need be after the wait for which it is parked."""
    Run.objects.filter(pk=run.pk, wake_at__isnull=False).update(wake_at=event_log.now())
    executor.advance(run.pk, owner="test")
    run.refresh_from_db()
    assert audit.first_wrong(run.pk) == ""
    return run


def set_terms(name: str = "shop", **wanted: Any) -> None:
    terms.of(name)
    dependencies.configure(name, by="admin", **wanted)
    terms.forget()


# --- rows -------------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize(("name", "kind", "read"), [("bank", "database", 5), ("model", "model", 60), ("shop", "api", 5)])
def test_a_dependency_gets_a_row_with_the_defaults_of_its_kind_at_first_sight(name: str, kind: str, read: float) -> None:
    assert guard.call(name, lambda: guard.terms().read_timeout_seconds) == read
    row = Dependency.objects.get()
    assert (row.name, row.kind, row.enabled, row.version, row.limit_requests) == (name, kind, True, 1, None)
    row.full_clean()


@pytest.mark.django_db(transaction=True)
def test_processes_that_see_it_first_at_once_make_one_row() -> None:
    code = (
        "import sys, django; django.setup(); from django.db import connection; connection.ensure_connection();"
        "print('ready', flush=True); sys.stdin.readline();"
        "from runs.reliability import guard; print(guard.call('shop', lambda: 'called'))"
    )
    ways = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    own = environment(DJANGO_SETTINGS_MODULE="agentops.settings")
    children = [subprocess.Popen([sys.executable, "-c", code], env=own, **ways) for _ in range(2)]
    for child in children:
        assert child.stdout.readline() == "ready\n"
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    assert [child.communicate(timeout=60)[0] for child in children] == ["called\n"] * 2
    assert Dependency.objects.count() == 1


@pytest.mark.django_db
def test_a_call_asks_the_database_nothing_while_what_it_knows_is_fresh(django_assert_num_queries: Any) -> None:
    call()
    with django_assert_num_queries(0):
        for _ in range(20):
            call()


@pytest.mark.django_db(transaction=True)
def test_a_thread_that_calls_holds_no_connection_meanwhile() -> None:
    connection.close()
    assert call(result=True)
    assert connection.connection is None


@pytest.mark.django_db
def test_a_change_counts_from_the_next_call_on_and_is_a_version() -> None:
    call()
    changed = dependencies.configure("shop", by="admin", read_timeout_seconds=3.5)
    assert (changed.version, changed.changed_by) == (2, "admin")
    terms.forget()
    assert guard.call("shop", lambda: guard.terms().read_timeout_seconds) == 3.5
    assert dependencies.configure("shop", by="admin", read_timeout_seconds=3.5).version == 2, "nothing was changed"


WRONG = [
    ("limit_requests", 0, "greater than or equal to 1"),
    ("limit_requests", -5, "greater than or equal to 1"),
    ("limit_tokens_per_minute", 0, "greater than or equal to 1"),
    ("limit_period_seconds", 0, "greater than or equal to 0.1"),
    ("concurrency", 0, "greater than or equal to 1"),
    ("breaker_failure_ratio", 3, "less than or equal to 1"),
    ("breaker_failure_ratio", 0, "greater than or equal to 0.01"),
    ("breaker_minimum_calls", 0, "greater than or equal to 1"),
    ("breaker_open_seconds", -1, "greater than or equal to 0.1"),
    ("retry_attempts", 0, "greater than or equal to 1"),
    ("retry_attempts", 21, "less than or equal to 20"),
    ("retry_total_seconds", 1e9, "less than or equal to 2592000"),
    ("read_timeout_seconds", None, "cannot be null"),
    ("attempt_timeout_seconds", 1, "at least as long as connecting, and as reading"),
    ("retry_longest_wait_seconds", 1, "at least as long as the first"),
]


@pytest.mark.django_db
@pytest.mark.parametrize(("field", "value", "said"), WRONG)
def test_what_makes_no_sense_is_refused_at_its_field(field: str, value: Any, said: str) -> None:
    terms.of("shop")
    with pytest.raises(ValidationError) as refused:
        dependencies.configure("shop", by="admin", **{field: value})
    assert list(refused.value.message_dict) == [field]
    assert said in " ".join(refused.value.message_dict[field])
    assert Dependency.objects.get().version == 1


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("field", "value"),
    [("limit_requests", 0), ("breaker_failure_ratio", 3), ("read_timeout_seconds", 0), ("read_timeout_seconds", "NaN")],
)
def test_the_database_refuses_it_too(field: str, value: Any) -> None:
    terms.of("shop")
    with pytest.raises(IntegrityError):
        Dependency.objects.update(**{field: value})


def test_an_admin_sees_the_error_at_the_field_and_the_history_of_what_was_changed(people: dict[str, User]) -> None:
    terms.of("shop")
    row, client = Dependency.objects.get(), Client()
    client.force_login(people["admin"])
    url = f"/admin/runs/dependency/{row.pk}/change/"
    form = client.get(url).context["adminform"].form
    sent = {name: "" if (value := form[name].value()) is None else value for name in form.fields}
    refused = client.post(url, sent | {"limit_requests": "0", "breaker_failure_ratio": "3"})
    assert refused.status_code == 200
    assert set(refused.context["adminform"].form.errors) == {"limit_requests", "breaker_failure_ratio"}
    assert client.post(url, sent | {"limit_requests": "50"}).status_code == 302
    row.refresh_from_db()
    assert (row.limit_requests, row.version, row.changed_by) == (50, 2, "admin")
    assert "limit_requests: not set → 50" in client.get(url).text


# --- a step and what its worker names ---------------------------------------------------------------------------------


@pytest.mark.parametrize("uses", ["Card Processor", ("bank", 1), ["bank"], ("",)])
def test_uses_must_name_dependencies(uses: Any) -> None:
    def pays(text: str) -> str:
        return text

    with pytest.raises(BadDeclaration, match="must name dependencies"):
        worker(uses=uses)(pays)


@pytest.mark.django_db
def test_a_step_calls_only_what_its_worker_names() -> None:
    assert carried("buy").output == {"said": "bought"}
    run = carried("forgets")
    assert (run.status, run.waiting_cause) == ("waiting", "person")
    assert 'forgets called shop without naming it, so nothing was sent: add uses="shop"' in run.reviews.get().why


# --- held back --------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize("text", ["buy", "once"])
def test_a_step_waits_for_a_dependency_that_is_switched_off_and_goes_on_afterwards(text: str, people: dict[str, User]) -> None:
    set_terms(enabled=False)
    run = carried(text)
    assert (run.status, run.waiting_cause, run.lease_until) == ("waiting", "switched_off", None)
    told = {fact.kind: fact.data for fact in event_log.facts(run.pk)}
    assert told["StepDeferred"]["cause"] == "switched_off"
    assert told["StepDeferred"]["dependency"] == told["RunParked"]["dependency"] == "shop"
    assert told["RunParked"]["why"] == told["StepDeferred"]["why"] == "shop is switched off: an admin can switch it on again."
    page, client = f"/runs/{run.pk}/", Client()
    client.force_login(people["operator"])
    sentence = "is held back. shop is switched off: an admin can switch it on again. It goes on at"
    assert sentence in client.get(page).text
    assert "was held back for" in client.get(page).text
    assert again(run).status == "waiting"
    set_terms(enabled=True)
    run = again(run)
    assert (run.output, run.steps.get().attempt) == ({"said": "bought"}, 1), "waiting is no attempt"


@pytest.mark.django_db
def test_what_may_happen_only_once_is_not_begun_again_after_a_first_call() -> None:
    set_terms("post", enabled=False)
    made: list[int] = []
    run = carried("once", lambda: (guard.call("shop", lambda: made.append(1)), call("post")))
    assert (run.status, run.waiting_cause, made) == ("waiting", "person", [1])
    review = run.reviews.get()
    assert review.cause == "outcome_unknown"
    assert "Before that it had called shop, so it is not begun again by itself" in review.why


@pytest.mark.django_db
def test_a_worker_without_the_engine_may_call_anything_and_is_told_of_a_wait() -> None:
    with executing(StepContext("1:x")):
        assert call() == "bought"
    set_terms(enabled=False)
    with pytest.raises(HeldBack, match="switched off"):
        call()


# --- held back by what all processes share ---------------------------------------------------------------------------


def told(run: Run, kind: str = "StepDeferred") -> dict[str, Any]:
    """What the last event of the kind says."""
    data: dict[str, Any] = [fact.data for fact in event_log.facts(run.pk) if fact.kind == kind][-1]
    return data


@pytest.mark.django_db
def test_a_full_window_parks_the_run_until_it_has_room() -> None:
    set_terms(limit_requests=2, limit_period_seconds=600)
    terms.of("shop")
    runs = [carried("buy") for _ in range(4)]
    assert [run.status for run in runs[:2]] == ["succeeded", "succeeded"]
    assert {(run.status, run.waiting_cause) for run in runs[2:]} == {("waiting", "limit")}
    assert told(runs[3])["why"] == "shop takes 2 requests in 600 s, and 2 are used."
    assert runs[3].wake_at > runs[2].wake_at, "each is told a time of its own"
    assert held.counts() == {"shop": 2}
    assert list(held.behind("shop").order_by("pk")) == runs[2:]
    assert not held.behind("post")


@pytest.mark.django_db
def test_no_slot_is_free_and_the_sentence_names_who_holds_them() -> None:
    set_terms(concurrency=1)
    entered = entry.enter("shop", "desk", "7:freeze_card", limits=terms.of("shop").limits)
    assert isinstance(entered, entry.Entered)
    run = carried("buy")
    assert run.waiting_cause == "slot"
    assert told(run)["why"] == "shop takes 1 call at once: no slot is free, held by run 7 (freeze_card)."
    entry.leave(entered, ok=True, duration=0.1)
    assert again(run).status == "succeeded"


@pytest.mark.django_db
def test_the_breaker_opens_parks_lets_one_try_and_every_change_is_a_row() -> None:
    set_terms(breaker_minimum_calls=3, breaker_open_seconds=0.5, retry_attempts=1)
    for _ in range(3):
        carried("buy", lambda: fail(ConnectionResetError("reset")))
    run = carried("buy")
    assert (run.status, run.waiting_cause) in [("waiting", "breaker"), ("succeeded", "")]
    rows = BreakerChange.objects.filter(dependency__name="shop").order_by("pk")
    assert [(row.old, row.new, row.by) for row in rows][:1] == [("closed", "open", "")]
    assert rows[0].why == "3 of 3 calls failed within 30 s."
    eventually(lambda: again(run).status == "succeeded")
    assert [row.new for row in rows.all()] == ["open", "half-open", "closed"]


@pytest.mark.django_db
def test_what_the_other_side_refuses_does_not_open_its_breaker() -> None:
    set_terms(breaker_minimum_calls=1)
    for error in (GiveUp("no such card"), KeyError("who knows"), TryLater(30, why="not ready yet")):
        with pytest.raises((GiveUp, AskHuman, TryLater)):
            fail(error)
    assert call() == "bought"
    assert not BreakerChange.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize(("wanted", "called"), [({}, True), ({"limit_requests": 5}, False), ({"concurrency": 5}, False)])
def test_without_redis_nothing_is_called_that_has_a_limit(
    wanted: dict[str, int], called: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_terms(**wanted)
    nobody = redis.Redis(host="127.0.0.1", port=1, retry=Retry(NoBackoff(), 0))
    monkeypatch.setattr(store, "redis", lambda: nobody)
    run = carried("buy")
    assert (run.status, run.waiting_cause) == (("succeeded", "") if called else ("waiting", "limit"))
    assert called or "counted in Redis, which cannot be reached" in told(run)["why"]


@pytest.mark.django_db
def test_a_call_that_is_larger_than_a_whole_minute_is_not_waited_for() -> None:
    set_terms(limit_tokens_per_minute=100)
    with pytest.raises(GiveUp, match="may be sent 100 tokens a minute, and this call alone asks for 101"):
        guard.call("shop", lambda: None, tokens=101)


@pytest.mark.django_db
def test_tokens_are_counted_as_they_were_used() -> None:
    set_terms(limit_tokens_per_minute=100)
    guard.call("shop", lambda: guard.used(5), tokens=90)
    assert limiter.use("shop", terms.of("shop").limits).tokens == 5


@pytest.mark.django_db
def test_the_slot_of_a_long_call_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    set_terms(concurrency=1)
    monkeypatch.setattr(renewer, "LEASE_SECONDS", 5.0)
    monkeypatch.setattr(renewer, "RENEW_SECONDS", 0.1)
    asked: list[bool] = []

    def lasts() -> None:
        first = slots.holders("shop")[0].until
        eventually(lambda: slots.holders("shop")[0].until > first)
        asked.append(True)

    guard.call("shop", lasts)
    assert asked == [True]
    assert slots.holders("shop") == []


@pytest.mark.django_db
def test_the_sweeper_asks_a_small_index_for_what_is_held_back() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        assert "run_held" in held.runs().explain()


@worker(uses="shop", timeout=0.3)
def buy_in_a_hurry(text: str) -> str:
    return str(DOES["buy"]())


@pytest.mark.django_db(transaction=True)
def test_a_step_is_cut_off_while_it_waits_for_an_answer_and_its_process_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    hanging, answers = threading.Event(), [lambda: hanging.wait(60), lambda: "bought"]
    monkeypatch.setitem(WORKERS, "buy", buy_in_a_hurry)
    try:
        run = carried("buy", lambda: guard.call("shop", answers.pop(0)))
    finally:
        hanging.set()
    assert run.output == {"said": "bought"}
    assert told(run, "AttemptCrashed")["reason"] == "because it took longer than 0.3 s"


# --- people -----------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_person_opens_and_closes_the_breaker_with_a_reason_and_it_is_recorded() -> None:
    terms.of("shop")
    dependencies.force("shop", "open", by="operator", reason="their maintenance")
    run = carried("buy")
    assert (run.waiting_cause, told(run)["cause"]) == ("breaker", "breaker")
    assert "The breaker of shop was opened by a person (their maintenance)" in told(run)["why"]
    with pytest.raises(Refused, match="Say why"):
        dependencies.force("shop", "closed", by="operator", reason=" ")
    dependencies.force("shop", "closed", by="admin", reason="they are back")
    with pytest.raises(Refused, match="is closed already"):
        dependencies.force("shop", "closed", by="admin", reason="again")
    rows = BreakerChange.objects.order_by("pk").values_list("old", "new", "why", "by")
    assert list(rows) == [
        ("closed", "open", "their maintenance", "operator"),
        ("open", "closed", "they are back", "admin"),
    ]
    assert again(run).status == "succeeded"


@pytest.mark.django_db
@pytest.mark.parametrize("decision", ["retry", "edit", "reject"])
def test_what_is_held_back_is_sent_to_people_who_decide_in_its_place(decision: str, people: dict[str, User]) -> None:
    set_terms(enabled=False)
    runs = [carried("buy") for _ in range(3)]
    assert dependencies.send_to_inbox("shop", by="operator", reason="today is the deadline", most=2) == 2
    run = Run.objects.get(pk=runs[0].pk)
    assert (run.status, run.waiting_cause, audit.first_wrong(run.pk)) == ("waiting", "person", "")
    review = run.reviews.get()
    assert "operator sent it to the inbox instead of waiting: today is the deadline" in review.why
    assert held.counts() == {"shop": 1}
    set_terms(enabled=True)
    value = {"edit": "bought by hand"}.get(decision)
    decisions.decide(review.pk, actor=people["reviewer"], kind=decision, seen=review.fingerprint, value=value, reason="so be it")
    run = again(run)
    assert (run.status, run.output) == {
        "retry": ("succeeded", {"said": "bought"}),
        "edit": ("succeeded", {"said": "bought by hand"}),
        "reject": ("failed", None),
    }[decision]


@pytest.mark.django_db
def test_runs_go_on_before_their_time_when_what_held_them_back_is_over() -> None:
    set_terms(enabled=False)
    runs = [carried("buy") for _ in range(6)]
    assert dependencies.wake() == 0
    set_terms(enabled=True)
    assert dependencies.wake() == 0, "other processes may not have heard of it"
    Dependency.objects.update(changed_at=event_log.now() - timedelta(seconds=2 * terms.FRESH_SECONDS))
    woken = [dependencies.wake()]
    assert 1 <= woken[0] <= 6, "the first cohort"
    Dependency.objects.update(changed_at=event_log.now() - timedelta(seconds=10))
    woken.append(dependencies.wake())
    assert sum(woken) == 6
    for run in runs:
        run.refresh_from_db()
        assert (run.status, run.wake_at) == ("queued", None)
        assert again(run).output == {"said": "bought"}
        assert "RunWoken" in [fact.kind for fact in event_log.facts(run.pk)]
    assert dependencies.wake() == 0


@pytest.mark.django_db
def test_a_raised_limit_is_heard_by_those_who_wait() -> None:
    set_terms(limit_requests=1, limit_period_seconds=3600)
    runs = [carried("buy") for _ in range(3)]
    assert [run.waiting_cause for run in runs] == ["", "limit", "limit"]
    assert dependencies.wake() == 0
    set_terms(limit_requests=100)
    eventually(lambda: dependencies.wake() == 1)
    eventually(lambda: dependencies.wake() == 1)
    eventually(lambda: [again(run).status for run in runs[1:]] == ["succeeded", "succeeded"])


@pytest.mark.django_db(transaction=True)
def test_of_two_who_send_the_same_runs_to_people_each_run_is_sent_once() -> None:
    set_terms(enabled=False)
    runs = [carried("buy") for _ in range(5)]
    barrier = threading.Barrier(2)

    def send() -> int:
        barrier.wait()
        try:
            return dependencies.send_to_inbox("shop", by="operator", reason="")
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        sent = [future.result() for future in [pool.submit(send), pool.submit(send)]]
    assert sum(sent) == 5
    assert [run.reviews.count() for run in runs] == [1] * 5


# --- what follows a failure -------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_dependency_says_how_often_and_how_late_a_step_is_tried_again() -> None:
    set_terms(retry_attempts=2, retry_first_wait_seconds=100, retry_longest_wait_seconds=100)
    run = carried("buy", lambda: fail(ConnectionResetError("reset")))
    failed = next(fact for fact in event_log.facts(run.pk) if fact.kind == "AttemptFailed")
    assert 0 <= failed.data["wait_seconds"] <= 100
    run = again(run) if run.status == "retrying" else run
    assert (run.status, run.waiting_cause) == ("waiting", "person")
    assert "It still failed after 2 attempts: shop: reset" in run.reviews.get().why


@pytest.mark.django_db
def test_no_attempt_begins_when_the_total_time_is_over() -> None:
    set_terms(retry_attempts=20, retry_total_seconds=60)
    asked = TryLater("busy", retry_after=45)
    run = carried("buy", lambda: fail(asked))
    assert run.status == "retrying"
    asked = TryLater("busy", retry_after=61)
    run = again(run)
    assert (run.status, run.waiting_cause) == ("waiting", "person")
    assert "It still failed after 2 attempts in 0 s: busy" in run.reviews.get().why


@pytest.mark.django_db
@pytest.mark.parametrize("error", [GiveUp("no such card"), AskHuman("look"), KeyError("who knows")])
def test_what_is_no_matter_of_time_is_not_tried_again(error: Exception) -> None:
    run = carried("buy", lambda: fail(error))
    assert (run.status, run.waiting_cause, run.steps.get().attempt) == ("waiting", "person", 1)
