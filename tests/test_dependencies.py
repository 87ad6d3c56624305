"""Dependencies: rows that appear at first sight, that an admin changes, and what a person may do to them."""

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.core.exceptions import ValidationError
from django.db import IntegrityError, ProgrammingError, connection, transaction
from django.test import Client

from agentops import checks
from reviews import decisions
from runs import audit, commands, dependencies, event_log, executor, policies, sweeper
from runs.models import BreakerChange, Dependency, Run, held
from runs.reliability import breaker, guard, store, terms
from runs.requests import Refused
from runs.sdk import BadDeclaration, worker
from tests import counters
from tests.processes import ROOT, environment, eventually
from tests.shop import again, call, carried, set_terms, told

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
    refused = client.post(url, sent | {"limit_requests": "-5"})
    assert refused.context["adminform"].form.errors["limit_requests"] == ["Ensure this value is greater than or equal to 1."]
    assert client.post(url, sent | {"limit_requests": "50"}).status_code == 302
    row.refresh_from_db()
    assert (row.limit_requests, row.version, row.changed_by) == (50, 2, "admin")
    assert "limit_requests: not set → 50" in client.get(url).text


def changed(days: float, old: str, new: str, by: str = "") -> BreakerChange:
    """As if it had been so many days ago."""
    made = BreakerChange(dependency=Dependency.objects.get(), old=old, new=new, why="so it was", by=by)
    with patch.object(BreakerChange._meta.get_field("at"), "auto_now_add", new=False):
        made.at = event_log.now() - timedelta(days=days)
        made.save()
    return made


@pytest.mark.django_db
def test_what_breakers_did_by_themselves_is_forgotten_some_time_and_what_people_did_is_not() -> None:
    call()
    cache.clear()
    gone = [changed(2, "open", "half-open"), changed(2, "half-open", "open"), changed(91, "closed", "open")]
    kept = [changed(0.5, "open", "half-open"), changed(2, "closed", "open"), changed(2, "half-open", "closed")]
    kept += [changed(400, "closed", "open", by="operator")]
    dependencies.tidy()
    assert set(BreakerChange.objects.all()) == set(kept), gone
    for one in (kept[0], kept[-1]):
        with pytest.raises(ProgrammingError, match="Cannot delete"), transaction.atomic():
            BreakerChange.objects.filter(pk=one.pk).delete()
    with pytest.raises(ProgrammingError, match="Cannot update"), transaction.atomic():
        BreakerChange.objects.filter(pk=kept[0].pk).update(why="not so")


# --- a step and what its worker names ---------------------------------------------------------------------------------


@pytest.mark.parametrize("uses", ["Card Processor", ("bank", 1), ["bank"], ("",)])
def test_uses_must_name_dependencies(uses: Any) -> None:
    def pays(text: str) -> str:
        return text

    with pytest.raises(BadDeclaration, match="must name dependencies"):
        worker(uses=uses)(pays)


def test_a_worker_that_may_happen_once_and_calls_two_dependencies_is_warned_of() -> None:
    told = [one.msg for one in checks.what_happens_once_calls_one_dependency(None) if "shop.buy" in one.msg]
    assert len(told) == 1
    assert told[0].startswith('The worker shop.buy_once has effect="once" and uses shop and post: where one of them has no room')


@pytest.mark.django_db
def test_a_step_calls_only_what_its_worker_names() -> None:
    assert carried("buy").output == {"said": "bought"}
    run = carried("forgets")
    assert (run.status, run.waiting_cause) == ("waiting", "person")
    assert 'forgets called shop without naming it, so nothing was sent: add uses="shop"' in run.reviews.get().why


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


@pytest.mark.django_db(transaction=True)
def test_what_a_person_opened_stays_open_when_redis_forgets_it() -> None:
    terms.of("shop")
    terms.of("post")
    dependencies.force("shop", "open", by="operator", reason="their maintenance")
    dependencies.force("post", "open", by="operator", reason="no stamps")
    dependencies.force("post", "closed", by="admin", reason="stamps are here")
    store.redis().flushall()
    assert breaker.look("shop").state == "closed", "forgotten"
    run = carried("buy")
    assert "was opened by a person (their maintenance)" in told(run)["why"], "also before the sweeper has looked"
    look = breaker.look("shop")
    assert (look.state, look.by, look.why, look.next_try) == ("open", "operator", "their maintenance", None)
    store.redis().flushall()
    sweeper.sweep()
    look = breaker.look("shop")
    assert (look.state, look.by, look.why, look.next_try) == ("open", "operator", "their maintenance", None)
    assert breaker.look("post").state == "closed"
    assert BreakerChange.objects.count() == 3, "it is the same opening"
    with pytest.raises(Refused, match="is open already"):
        dependencies.force("shop", "open", by="admin", reason="again")
    dependencies.force("shop", "closed", by="admin", reason="they are back")
    dependencies.keep_open()
    assert breaker.look("shop").state == "closed"


@pytest.mark.django_db
def test_a_breaker_is_not_opened_where_nobody_could_say_who_did() -> None:
    terms.of("shop")
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE runs_breakerchange ADD CONSTRAINT nobody CHECK (by = '')")
    with pytest.raises(IntegrityError):
        dependencies.force("shop", "open", by="operator", reason="their maintenance")
    assert breaker.look("shop").state == "closed"


@pytest.mark.django_db(transaction=True)
def test_of_who_closes_a_breaker_and_who_restores_it_the_person_wins() -> None:
    terms.of("shop")
    dependencies.force("shop", "open", by="operator", reason="their maintenance")
    barrier = threading.Barrier(2)

    def act(what: Callable[[], object]) -> None:
        barrier.wait()
        try:
            what()
        finally:
            connection.close()

    for _ in range(10):
        assert breaker.look("shop").state == "open"
        with ThreadPoolExecutor(2) as pool:
            closes = pool.submit(act, lambda: dependencies.force("shop", "closed", by="admin", reason="they are back"))
            restores = pool.submit(act, dependencies.keep_open)
            for future in (closes, restores):
                future.result()
        assert breaker.look("shop").state == "closed"
        dependencies.force("shop", "open", by="operator", reason="their maintenance")


@pytest.mark.django_db
@pytest.mark.parametrize("decision", ["retry", "take_over", "reject"])
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
    value = {"take_over": "bought by hand"}.get(decision)
    decisions.decide(review.pk, actor=people["reviewer"], kind=decision, seen=review.fingerprint, value=value, reason="so be it")
    run = again(run)
    assert (run.status, run.output) == {
        "retry": ("succeeded", {"said": "bought"}),
        "take_over": ("succeeded", {"said": "bought by hand"}),
        "reject": ("failed", None),
    }[decision]


@pytest.mark.django_db
def test_what_is_sent_to_people_is_asked_as_its_policy_says(people: dict[str, User]) -> None:
    policies.configure(by="admin", agent="buying", when="never", risk="high", approvals=2, within_seconds=60)
    set_terms(enabled=False)
    run = carried("buy")
    assert dependencies.send_to_inbox("shop", by="operator", reason="") == 1
    review, run = run.reviews.get(), Run.objects.get(pk=run.pk)
    assert (review.get_risk_display().lower(), review.approvals, run.waiting_cause) == ("high", 2, "person")
    assert review.due_at is not None
    assert run.wake_at == review.due_at
    assert audit.first_wrong(run.pk) == ""


@pytest.mark.django_db
def test_who_waits_for_a_budget_does_not_wait_for_the_model_and_is_not_sent_to_people() -> None:
    commands.configure("consuming", by="admin", day_calls=1)
    runs = [commands.start("consuming", {"text": "line", "number": 1, "ledger": ""}, by="operator") for _ in range(3)]
    for run in runs:
        executor.advance(run.pk, owner="test")
    assert Run.objects.get(pk=runs[2].pk).waiting_cause == "budget"
    assert (held.counts(), list(held.behind("model"))) == ({}, [])
    assert dependencies.send_to_inbox("model", by="operator", reason="") == 0


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
def test_who_is_cancelled_or_sent_to_people_leaves_the_line(people: dict[str, User]) -> None:
    set_terms(limit_requests=1, limit_period_seconds=600)
    runs = [carried("buy") for _ in range(4)]
    assert counters.waiting("shop") == {"buying": 3}
    commands.cancel(runs[3].pk, by="operator")
    assert counters.waiting("shop") == {"buying": 2}
    assert dependencies.send_to_inbox("shop", by="operator", reason="too long") == 2
    assert counters.waiting("shop") == {}


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
