"""Runs that a run starts: begun once, waited for without a process, contained when they fail, cancelled with their parent."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import transaction
from psycopg import OperationalError
from pydantic import BaseModel

from reviews import decisions
from reviews.models import Review
from runs import audit, commands, dispatch, event_log, executor, reasons, sweeper
from runs.engine import canonical
from runs.engine.canonical import INLINE_LETTERS
from runs.engine.errors import GiveUp
from runs.models import Run
from runs.sdk import Child, Outcome, agent, worker
from runs.sdk import Run as Handle
from tests import spending
from tests.agents import Answer, Order

pytestmark = pytest.mark.django_db
DOES: dict[str, Callable[..., Any]] = {}
CALLED: list[str] = []


@worker
def errand(text: str) -> str:
    CALLED.append(text)
    return str(DOES.get(text, lambda: text)())


class Errand(BaseModel):
    text: str


@agent("errands", title="Errands", version="1")
def errands(run: Handle, given: Errand) -> Answer:
    """One step; its text may be that of a script."""
    if given.text == "deeper":
        child = run.spawn("child", "errands", {"text": "deeper"})
        return Answer(said=run.join(child)[0].error)
    return Answer(said=run.step("errand", errand, text=given.text))


@agent("delegating", title="Delegating", version="1")
def delegating(run: Handle, order: Order) -> Answer:
    """Does what the test has put into DOES."""
    return Answer(said=str(DOES["supervisor"](run)))


@pytest.fixture(autouse=True)
def blank() -> None:
    DOES.clear()
    CALLED.clear()


def started(supervisor: Callable[[Handle], Any]) -> Run:
    DOES["supervisor"] = supervisor
    return commands.start("delegating", {"text": "hello"}, by="operator")


def advanced(run: Run) -> Run:
    executor.advance(run.pk, owner="test")
    run.refresh_from_db()
    assert audit.first_wrong(run.pk) == ""
    return run


def review_of(run: Run) -> Review:
    return Review.objects.open().get(run=run)


def all_done() -> None:
    """Advance whatever is due, as job processes do."""
    while due := list(Run.objects.due().values_list("pk", flat=True)):
        for run_id in due:
            executor.advance(run_id, owner="test")


def said(outcomes: list[Outcome]) -> str:
    return " ".join(one.output.said if one.succeeded else f"{one.status}: {one.error}" for one in outcomes)


def two(run: Handle) -> str:
    one = run.spawn("one", errands, Errand(text="first"))
    return said(run.join(one, run.spawn("two", "errands", {"text": "second"})))


def test_a_parent_holds_no_process_while_its_children_go_on() -> None:
    run = advanced(started(two))
    assert (run.status, run.waiting_cause, run.lease_until, CALLED) == ("waiting", "children", None, [])
    children = list(run.children.order_by("pk"))
    assert run.waiting_runs == [child.pk for child in reversed(children)]
    assert [(child.agent, child.status, child.started_by) for child in children] == [("errands", "queued", "operator")] * 2
    assert reasons.waiting(run, reasons.Wait(None, open_children=2)) == "It waits for 2 of the 2 runs that it started."
    advanced(children[0])
    assert advanced(run).status == "waiting", "one is still open"
    advanced(children[1])
    assert advanced(run).output == {"said": "first second"}
    assert [step.worker for step in run.steps.all()] == ["spawn[errands]", "spawn[errands]", "join"]
    assert all(audit.first_wrong(child.pk) == "" for child in children)


def test_a_child_that_fails_is_contained_and_one_that_is_cancelled_too() -> None:
    DOES["first"] = lambda: raises(GiveUp("gone"))
    run = advanced(started(two))
    first, second = run.children.order_by("pk")
    assert advanced(first).status == "waiting", "a failed step asks a person"
    commands.cancel(first.pk, by="operator", reason="no use")
    commands.cancel(second.pk, by="operator")
    assert advanced(run).output == {"said": "cancelled:  cancelled: "}


def raises(error: Exception) -> Any:
    raise error


def test_runs_that_start_themselves_come_to_a_person_who_may_let_them_go_deeper_or_finish(people: dict[str, User]) -> None:
    run = started(lambda run: said(run.join(run.spawn("child", "errands", {"text": "deeper"}))))
    all_done()
    run.refresh_from_db()
    deepest = Run.objects.latest("pk")
    assert (deepest.status, Run.objects.count(), run.status) == ("waiting", 6, "waiting")
    review = review_of(deepest)
    assert (review.cause, review.allowed) == ("budget", ["raise", "finish", "cancel"])
    assert review.why.startswith("Step 'child' would start a run 6 below the first; 5 is the most.")
    spending.decided("raise", review, value="6")
    all_done()
    deepest = Run.objects.latest("pk")
    assert Run.objects.count() == 7, "its child may go as deep, and asks again"
    assert "a run 7 below the first; 6 is the most." in review_of(deepest).why
    spending.decided("finish", review_of(deepest))
    all_done()
    run.refresh_from_db()
    deepest.refresh_from_db()
    assert (deepest.status, deepest.error["kind"], run.status) == ("failed", "budget_exhausted", "succeeded")
    assert all(audit.first_wrong(run_id) == "" for run_id in Run.objects.values_list("pk", flat=True))


def test_children_begin_once_whatever_happens_to_the_parent() -> None:
    run = started(lambda run: said(run.join(*run.spawn_many("many", errands, [{"text": str(n)} for n in range(5)]))))
    for moment in ("before", "after"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(event_log.RunLog, "append", dying(event_log.RunLog.append, moment))
            with pytest.raises((OperationalError, Killed)), transaction.atomic():
                executor.advance(run.pk, owner="killed")
        assert run.children.count() == 0
    assert advanced(run).waiting_cause == "children"
    all_done()
    run.refresh_from_db()
    assert (run.output, sorted(CALLED)) == ({"said": "0 1 2 3 4"}, ["0", "1", "2", "3", "4"])
    Run.objects.filter(pk=run.pk).update(status="queued")
    executor.advance(run.pk, owner="test")
    assert run.children.count() == 5


class Killed(BaseException):
    """The process ended."""


def dying(append: Callable[..., None], moment: str) -> Callable[..., None]:
    """At the write that would record the children."""

    def write(log: event_log.RunLog, *drafts: Any, release: bool = False, **more: Any) -> None:
        last = any(draft.data.get("worker", "").startswith("spawn[") for draft in drafts)
        if not last or moment == "after":
            append(log, *drafts, release=release, **more)
        if last:
            raise Killed

    return write


def test_cancelling_the_parent_cancels_its_open_children_and_theirs() -> None:
    DOES["first"] = lambda: commands.cancel(parents[0], by="operator") or "done"
    parents: list[int] = []
    run = advanced(started(lambda run: said(run.join(run.spawn("one", "errands", {"text": "second"})))))
    parents.append(run.pk)
    child = run.children.get()
    commands.cancel(run.pk, by="operator")
    sweeper.sweep()  # the canceller may die before
    child.refresh_from_db()
    assert child.status == "cancelled"
    assert event_log.facts(child.pk)[-1].data["reason"] == f"Run {run.pk}, which had started it, was cancelled."
    commands.retry(run.pk, by="operator")
    assert advanced(run).output == {"said": "cancelled: "}


def test_a_child_that_somebody_retries_after_its_parent_was_cancelled_goes_on() -> None:
    run = advanced(started(lambda run: said(run.join(run.spawn("one", "errands", {"text": "first"})))))
    commands.cancel(run.pk, by="operator")
    sweeper.sweep()
    child = run.children.get()
    commands.retry(child.pk, by="operator")
    sweeper.sweep()
    assert advanced(child).status == "succeeded"


def test_a_child_that_a_fork_took_over_goes_on_until_the_last_of_them_is_cancelled(people: dict[str, User]) -> None:
    def looked_at(name: str) -> Callable[[Handle], Any]:
        def supervisor(run: Handle) -> str:
            child = run.spawn("child", "errands", {"text": "first"})
            run.step(name, errand.gated("look"), text="second")
            return said(run.join(child))

        return supervisor

    run, child = advanced(started(looked_at("before"))), Run.objects.latest("pk")
    for name in ("changed", "changed again"):
        decided(run, "approve", people["reviewer"])
        DOES["supervisor"] = looked_at(name)
        decided(advanced(run), "fork", people["reviewer"])
        sweeper.sweep()
        run = advanced(Run.objects.get(forked_from=run))
    assert Run.objects.get(pk=child.pk).status == "queued", "two runs that have it were cancelled, the third waits for it"
    commands.cancel(run.pk, by="operator")
    sweeper.sweep()
    assert Run.objects.get(pk=child.pk).status == "cancelled"


def decided(run: Run, kind: str, by: User) -> None:
    review = Review.objects.open().get(run=run)
    decisions.decide(review.pk, actor=by, kind=kind, seen=review.fingerprint, reason="because")


def test_a_fork_from_before_its_start_does_not_keep_a_child() -> None:
    run = advanced(started(lambda run: said(run.join(run.spawn("one", "errands", {"text": "first"})))))
    child = run.children.get()
    commands.fork(run.pk, step=1, by="operator")
    commands.cancel(run.pk, by="operator")
    sweeper.sweep()
    assert Run.objects.get(pk=child.pk).status == "cancelled"


@pytest.mark.parametrize("inline", [INLINE_LETTERS, 80], ids=["in its event", "set apart"])
def test_a_fork_keeps_the_children_of_the_steps_that_it_took_over_and_no_others_of_their_agent(
    inline: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (canonical, event_log):
        monkeypatch.setattr(module, "INLINE_LETTERS", inline)
    given = [{"text": "x"}] * 20
    run = advanced(
        started(lambda run: said(run.join(*run.spawn_many("many", errands, given), run.spawn("one", errands, given[0]))))
    )
    *kept, last = run.children.order_by("pk")
    forked = advanced(commands.fork(run.pk, step=2, by="operator"))
    began_anew = advanced(commands.fork(run.pk, step=1, by="operator"))
    commands.fork(began_anew.pk, step=2, by="operator")
    commands.cancel(run.pk, by="operator")
    assert list(Run.objects.orphaned()) == [last]
    commands.cancel(forked.pk, by="operator")
    assert set(Run.objects.orphaned().filter(parent=run)) == {*kept, last}, "the others have children of their own"


def test_the_last_child_calls_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[int] = []
    run = advanced(started(two))
    monkeypatch.setattr(dispatch, "enqueue_now", lambda calls: called.extend(call.run_id for call in calls))
    first, second = run.children.order_by("pk")
    advanced(first)
    assert called == []
    advanced(second)
    assert called == [run.pk]


def test_a_run_that_would_start_too_many_asks_a_person_first_and_again_after_a_cancel(
    settings: Any, people: dict[str, User]
) -> None:
    settings.CHILDREN_LIMIT = 3
    run = advanced(started(lambda run: len(run.spawn_many("many", "errands", [{"text": "x"}] * 4))))
    assert (run.status, run.waiting_cause, run.children.count()) == ("waiting", "person", 0)
    assert review_of(run).why == "With step 'many' this run would have 4 children; 3 is the most."
    commands.cancel(run.pk, by="operator")
    commands.retry(run.pk, by="operator")
    review = review_of(advanced(run))
    assert review.proposal | {"unit": "children", "limit": "3", "used": "0", "needs": "4", "double": "6"} == review.proposal
    spending.decided("raise", review, value="4")
    assert (advanced(run).output, run.children.count()) == ({"said": "4"}, 4)


def test_starting_runs_in_a_loop_comes_to_the_limit_of_steps(people: dict[str, User]) -> None:
    commands.configure("delegating", by="admin", run_steps=3)
    run = advanced(started(lambda run: [run.spawn(f"child_{number}", "errands", {"text": "x"}) for number in range(9)]))
    assert (run.status, run.waiting_cause, run.children.count()) == ("waiting", "person", 3)
    spending.decided("cancel", review_of(run))
    run.refresh_from_db()
    assert (run.status, run.children.filter(status="queued").count()) == ("cancelled", 3)


@pytest.mark.parametrize(
    ("supervisor", "words"),
    [
        (lambda run: run.spawn("one", "nobody", {}), "There is no agent 'nobody'. Known agents: "),
        (lambda run: run.spawn("one", "errands", {"text": 3}), "The input of step 'one' does not fit the agent errands: text: "),
        (lambda run: [run.spawn("one", "errands", {"text": "x"}) for _ in range(2)], "Two steps of this run are named 'one'"),
    ],
)
def test_what_cannot_be_started_fails_the_run_with_a_sentence(supervisor: Any, words: str) -> None:
    run = advanced(started(supervisor))
    assert run.status == "failed"
    assert words in run.error["message"]


def test_a_join_is_recorded_and_asks_for_the_same_runs() -> None:
    run = started(
        lambda run: said(run.join(run.spawn("one", "errands", {"text": "x"}))) + str(run.step("last", errand, text="y"))
    )
    all_done()
    run.refresh_from_db()
    assert run.output == {"said": "xy"}
    assert event_log.RunLog.load(run.pk).state.steps[2].output == [
        {"run": run.children.get().pk, "status": "succeeded", "output": {"said": "x"}, "error": ""}
    ]


def test_a_join_of_large_outputs_keeps_their_digests_and_a_replay_reads_them_from_the_children(people: dict[str, User]) -> None:
    def measured(run: Handle) -> int:
        outcomes = run.join(*run.spawn_many("many", errands, [{"text": "large"}] * 2))
        run.step("look", errand.gated("look"), text="x")
        return sum(len(one.output.said) for one in outcomes)

    DOES["large"] = lambda: "x" * 6_000_000
    run = started(measured)
    all_done()
    joined = event_log.RunLog.load(run.pk).state.steps[2].output
    assert [(one["output"], len(one["digest"])) for one in joined] == [(None, 64)] * 2
    decided(run, "approve", people["reviewer"])
    with transaction.atomic():
        assert advanced(run).output == {"said": "12000000"}
        transaction.set_rollback(True)
    last = run.children.latest("pk")
    Run.objects.filter(pk=last.pk).update(output={"said": "something else"})
    run.refresh_from_db()
    assert advanced(run).error["message"] == f"The output of run {last.pk} is no longer what was recorded when it was waited for."


def test_a_join_of_nothing_is_nothing() -> None:
    assert advanced(started(lambda run: run.join())).output == {"said": "[]"}


def test_the_log_of_a_parent_does_not_grow_with_its_children() -> None:
    def fan_out(run: Handle) -> str:
        children: list[Child] = run.spawn_many("many", errands, [{"text": str(number)} for number in range(200)])
        return str(sum(int(one.output.said) for one in run.join(*children)))

    run = advanced(started(fan_out))
    assert (run.last_seq, len(run.waiting_runs)) == (7, 200)
    all_done()
    run.refresh_from_db()
    assert (run.status, run.output) == ("succeeded", {"said": str(sum(range(200)))})
