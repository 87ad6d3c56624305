"""Many runs cancelled or retried together: what is shown and frozen before, what came of each, and that each is done once."""

import re
from collections import Counter
from datetime import timedelta
from html import unescape
from threading import Thread
from typing import Any

import django_rq
import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.db import connection, connections, transaction
from django.db.models import F
from django.urls import reverse
from django.utils import timezone

from runs import bulk, commands, dispatch, event_log, executor, sealed, signals
from runs.engine.events import Kind
from runs.models import BulkAction, BulkActionItem, Run
from tests.interleaved import ends_who_waits, somebody_waits
from tests.processes import eventually, kill, process

pytestmark = pytest.mark.django_db
FAST = {"SWEEP_SECONDS": "0.2", "LOG_LEVEL": "WARNING"}


def waiting(text: str = "one") -> Run:
    """A run that waits for a person."""
    run = commands.start("paying", {"text": text}, by="operator")
    executor.advance(run.pk, owner="test")
    return Run.objects.get(pk=run.pk)


def cancelled(text: str = "one") -> Run:
    run = waiting(text)
    commands.cancel(run.pk, by="operator")
    return Run.objects.get(pk=run.pk)


def queued_nowhere(number: int) -> list[Run]:
    """Runs that were cancelled, of which no job process has a call left."""
    runs = [cancelled(str(each)) for each in range(number)]
    django_rq.get_connection("default").flushall()
    return runs


def begun(kind: str, runs: list[Run], actor: User, **more: Any) -> BulkAction:
    """What the form of the preview does."""
    preview = bulk.preview(kind, [run.pk for run in runs], actor)
    seen = sealed.opened(preview.sealed(), by=actor.pk, salt=bulk.SALT)
    return bulk.begin(seen, actor=actor, **more)


def hidden(page: str) -> str:
    found = re.search(r'name="seen" value="([^"]+)"', page)
    assert found
    return unescape(found[1])


def statuses(*runs: Run) -> list[str]:
    return [Run.objects.get(pk=run.pk).status for run in runs]


def retries(run_id: int) -> int:
    return [fact.kind for fact in event_log.facts(run_id)].count(Kind.RUN_RETRIED)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What job processes are asked to do."""
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr(dispatch, "ask", lambda *job: calls.append(job))
    return calls


def test_ticked_runs_are_shown_confirmed_cancelled_and_told_of(signed_in: Any) -> None:
    client, first, second, ended = signed_in(), waiting("first"), waiting("second"), cancelled("ended")
    ticked = [first.pk, second.pk, ended.pk]
    page = client.post(reverse("preview_bulk_action"), {"ticked": "cancel", "run": [*ticked, "x", "9" * 30]}).text
    assert "Cancel 2 runs" in page
    assert "1 · Has ended already (cancelled): there is nothing to cancel." in page
    assert statuses(first, second) == ["waiting", "waiting"]
    sent = {"seen": hidden(page), "reason": "a mistake of ours\x00"}
    answer = client.post(reverse("begin_bulk_action"), sent)
    again = client.post(reverse("begin_bulk_action"), sent)
    assert (answer.status_code, again["Location"]) == (302, answer["Location"])
    assert statuses(first, second) == ["cancelled", "cancelled"]
    result = client.get(answer["Location"]).text
    assert "Cancel 2 runs" in result
    assert "a mistake of ours" in result
    assert re.findall(r'href="/runs/(\d+)/">', result) == [str(second.pk), str(first.pk)]
    assert (event_log.facts(first.pk)[-1].actor, event_log.facts(first.pk)[-1].data) == (
        "operator",
        {"reason": "a mistake of ours\ufffd"},
    )
    assert "2 of 2" in client.get(reverse("bulk_actions")).text


def test_what_fits_the_filter_later_is_not_touched_and_who_does_not_fit_any_more_says_why(signed_in: Any) -> None:
    client, first, second, running = signed_in(), cancelled("first"), cancelled("second"), waiting("third")
    page = client.post(f"{reverse('preview_bulk_action')}?agent=paying", {"all": "retry"}).text
    assert "Retry 2 runs" in page
    assert "1 · Neither failed nor cancelled (waiting): there is nothing to retry." in page
    assert f">run {running.pk}</a>" in page
    later = cancelled("later")
    commands.retry(second.pk, by="admin")
    answer = client.post(f"{reverse('begin_bulk_action')}?agent=paying", {"seen": hidden(page)})
    assert statuses(first, second, later) == ["queued", "queued", "cancelled"]
    assert (retries(first.pk), retries(second.pk)) == (1, 1)
    refused = client.get(f"{answer['Location']}?outcome=refused").text
    assert "Only a failed or cancelled run can be retried; this one is queued." in refused
    assert f'href="/runs/{first.pk}/"' not in refused


def test_no_more_than_the_limit_is_taken_and_it_is_said(signed_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "MOST", 1)
    older, newest = waiting(), waiting()
    page = signed_in().post(reverse("preview_bulk_action"), {"all": "cancel"}).text
    assert "More than 1 fit" in page
    assert (f">{newest.pk}</a>" in page, f">{older.pk}</a>" in page) == (True, False)


def test_runs_that_others_started_are_retried_from_their_own_pages(people: dict[str, User]) -> None:
    parent, child = cancelled(), cancelled()
    Run.objects.filter(pk=child.pk).update(parent=parent)
    preview = bulk.preview("retry", [parent.pk, child.pk], people["operator"])
    assert preview.chosen == [parent.pk]
    assert [(one.why, one.runs) for one in preview.left_out] == [(bulk.OF_A_PARENT, [child.pk])]


def test_runs_of_an_agent_that_is_not_installed_are_not_promised_a_retry(people: dict[str, User]) -> None:
    run, gone = cancelled(), cancelled()
    Run.objects.filter(pk=gone.pk).update(agent="gone")
    preview = bulk.preview("retry", [run.pk, gone.pk], people["operator"])
    assert preview.chosen == [run.pk]
    assert [(one.why, one.runs) for one in preview.left_out] == [(bulk.NOT_INSTALLED, [gone.pk])]


@pytest.mark.parametrize("sent", [{"ticked": "cancel"}, {"all": "delete"}, {"run": "1"}])
def test_what_cannot_be_meant_is_said_and_nothing_is_done(signed_in: Any, sent: dict[str, str]) -> None:
    answer = signed_in().post(f"{reverse('preview_bulk_action')}?status=failed", sent, follow=True)
    assert answer.redirect_chain == [("/runs/?status=failed", 302)]
    assert "You have chosen no run" in answer.text


def test_a_preview_of_somebody_else_or_of_long_ago_does_nothing(
    signed_in: Any, people: dict[str, User], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, path = waiting(), reverse("begin_bulk_action")
    mine = bulk.preview("cancel", [run.pk], people["operator"]).sealed()
    for name, seen in (("admin", mine), ("operator", "made up"), ("operator", mine)):
        if seen is mine and name == "operator":
            monkeypatch.setattr(sealed, "GOOD_FOR", timedelta(seconds=-1))
        answer = signed_in(name).post(path, {"seen": seen}, follow=True)
        assert "Nothing was done: you saw these runs more than an hour ago" in answer.text
    assert (statuses(run), BulkAction.objects.count()) == (["waiting"], 0)


def test_many_are_left_to_a_job_stopped_half_way_and_gone_on_with(
    signed_in: Any, people: dict[str, User], monkeypatch: pytest.MonkeyPatch, asked: list[tuple[str, ...]]
) -> None:
    monkeypatch.setattr(bulk, "AT_ONCE", 1)
    client, runs = signed_in(), [waiting(text) for text in ("one", "two", "three")]
    action = begun("cancel", runs, people["operator"])
    assert asked == [(bulk.JOB, str(action.pk))]
    assert 'hx-trigger="every 1s"' in client.get(f"{action.get_absolute_url()}?part=now").text
    assert "operator cancels 3 runs together</a>: 0 done so far." in client.get("/runs/").text
    bulk._carry_next(action, 0, may=True)
    assert "2 of 3 are still to come" in client.get(action.get_absolute_url()).text
    assert signed_in("reviewer").post(reverse("stop_bulk_action", args=[action.pk])).status_code == 403
    signed_in("admin").post(reverse("stop_bulk_action", args=[action.pk]))
    bulk.carry(str(action.pk))
    stopped = client.get(action.get_absolute_url()).text
    assert "Stopped: the other 2 were not touched" in stopped
    assert "admin stopped it" in stopped
    assert "Go on with the other 2" in stopped
    seen_at = action.previewed_at
    BulkAction.objects.update(previewed_at=seen_at - timedelta(hours=1))
    assert "Look once more at the other 2" in client.get(action.get_absolute_url()).text
    assert "Yes, cancel 2 runs" in client.post(reverse("continue_bulk_action", args=[action.pk])).text
    assert (len(asked), BulkAction.objects.get().stopped_by) == (1, "admin"), "nothing is gone on with unseen"
    BulkAction.objects.update(previewed_at=seen_at)
    assert sorted(statuses(*runs)) == ["cancelled", "waiting", "waiting"]
    assert "together</a>" not in client.get("/runs/").text
    assert signed_in("admin").post(reverse("continue_bulk_action", args=[action.pk])).status_code == 403
    client.post(reverse("continue_bulk_action", args=[action.pk]))
    assert asked[1:] == [(bulk.JOB, str(action.pk))]
    bulk.carry(str(action.pk))
    done = client.get(f"{action.get_absolute_url()}?part=now").text
    assert ("Done</h2>" in done, "hx-trigger" in done, 'hx-swap-oob="true"' in done) == (True, False, True)
    assert statuses(*runs) == ["cancelled"] * 3
    bulk.stop(action, by="admin")
    client.post(reverse("continue_bulk_action", args=[action.pk]))
    assert (len(asked), BulkAction.objects.get().stopped_by) == (2, "admin"), "nothing is left to go on with"


def test_who_lost_the_right_meanwhile_does_no_more(
    people: dict[str, User], monkeypatch: pytest.MonkeyPatch, asked: list[tuple[str, ...]]
) -> None:
    monkeypatch.setattr(bulk, "AT_ONCE", 0)
    run, actor = waiting(), people["operator"]
    action = begun("cancel", [run], actor)
    actor.groups.clear()
    bulk.carry(str(action.pk))
    assert [item.said for item in action.items.all()] == ["operator may not cancel or retry runs any more."]
    assert statuses(run) == ["waiting"]


def test_a_run_that_cannot_be_read_or_is_gone_holds_up_no_other(
    people: dict[str, User], monkeypatch: pytest.MonkeyPatch, asked: list[tuple[str, ...]]
) -> None:
    monkeypatch.setattr(bulk, "AT_ONCE", 0)
    broken, gone, sound, large = waiting(), waiting(), waiting(), waiting()
    action = begun("cancel", [sound, gone, broken, large], people["operator"])
    action.items.filter(run=gone.pk).update(run=2**40)
    real = commands.cancel

    def cancel(run_id: int, **more: Any) -> None:
        real(run_id, **more)
        if run_id == broken.pk:
            raise ValueError("event 3 is not what was written\x00")
        if run_id == large.pk:
            with connection.cursor() as cursor:
                cursor.execute("DO $$BEGIN RAISE 'more than PostgreSQL holds' USING ERRCODE = '54000'; END$$")

    monkeypatch.setattr(commands, "cancel", cancel)
    bulk.carry(str(action.pk))
    said = dict(action.items.values_list("run", "said"))
    assert said[sound.pk] == ""
    assert said[2**40] == "The run is not there any more."
    assert said[broken.pk] == "It could not be done: ValueError: event 3 is not what was written\ufffd"
    assert said[large.pk].startswith("It could not be done: OperationalError: more than PostgreSQL holds")
    assert statuses(sound, broken, large) == ["cancelled", "waiting", "waiting"], "what was half done is taken back"


def test_one_whose_process_has_ended_is_taken_up_once_at_the_sweepers_word(
    signed_in: Any, people: dict[str, User], monkeypatch: pytest.MonkeyPatch, asked: list[tuple[str, ...]]
) -> None:
    monkeypatch.setattr(bulk, "AT_ONCE", 0)
    action = begun("cancel", [waiting()], people["operator"])
    asked.clear()
    signals.swept.send(sender=None)
    assert asked == [], "it was heard of just now"
    BulkAction.objects.update(asked_at=timezone.now() - timedelta(minutes=1))
    signals.swept.send(sender=None)
    signals.swept.send(sender=None)
    assert asked == [(bulk.JOB, str(action.pk))]
    cache.clear()
    bulk.stop(action, by="admin")
    signals.swept.send(sender=None)
    BulkAction.objects.update(stopped_at=None, asked_at=timezone.now() - timedelta(days=2))
    signals.swept.send(sender=None)
    assert len(asked) == 1
    assert "it does not go on by itself any more" in signed_in().get(action.get_absolute_url()).text


def test_while_no_process_is_free_one_call_for_it_waits(
    people: dict[str, User], monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks: Any
) -> None:
    monkeypatch.setattr(bulk, "AT_ONCE", 0)
    with django_capture_on_commit_callbacks(execute=True):
        action = begun("retry", queued_nowhere(1), people["operator"])
    BulkAction.objects.update(asked_at=timezone.now() - timedelta(minutes=1))
    for _ in range(2):
        with django_capture_on_commit_callbacks(execute=True):
            bulk.take_up()
        cache.delete(f"agentops:bulk:{action.pk}")
    assert [job.args for job in django_rq.get_queue("default").jobs if job.func_name == bulk.JOB] == [[str(action.pk)]]


def test_kill_9_in_the_middle_of_a_retry_and_each_goes_on_exactly_once(
    transactional_db: None, people: dict[str, User], monkeypatch: pytest.MonkeyPatch
) -> None:
    """L7: the process is killed when it has retried the fourth of eight and has not committed it; another goes on by itself."""
    monkeypatch.setattr(bulk, "AT_ONCE", 0)
    *runs, later = queued_nowhere(9)
    action = begun("retry", runs, people["operator"])
    fourth = action.items.order_by("pk")[3]
    with process("rqworker", "default", **FAST) as victim, transaction.atomic():
        Run.objects.select_for_update().get(pk=fourth.run)
        eventually(somebody_waits)
        kill(victim)
        ends_who_waits()
    assert Counter(action.items.values_list("outcome", flat=True)) == {"done": 3, "": 5}
    assert [retries(item.run) for item in action.items.order_by("pk")] == [1] * 3 + [0] * 5
    action.items.update(at=F("at") - timedelta(minutes=1))  # it has been silent for long
    BulkAction.objects.update(asked_at=F("asked_at") - timedelta(minutes=1))
    with process("rqworker", "default", **FAST), process("sweeper", **FAST):
        eventually(lambda: action.left == 0)
    assert Counter(action.items.values_list("outcome", flat=True)) == {"done": 8}
    assert [retries(run.pk) for run in (*runs, later)] == [1] * 8 + [0]


def test_two_who_carry_the_same_take_different_runs(
    transactional_db: None, people: dict[str, User], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One holds the first item in its hand; the other does the rest and does not wait for it."""
    monkeypatch.setattr(bulk, "AT_ONCE", 0)
    action = begun("retry", queued_nowhere(3), people["operator"])
    with transaction.atomic():
        first = BulkActionItem.objects.select_for_update().filter(bulk=action).order_by("pk")[0]
        other = Thread(target=lambda: (bulk.carry(str(action.pk)), connections.close_all()))
        other.start()
        eventually(lambda: action.left == 1)
        other.join(timeout=10)
    assert (other.is_alive(), retries(first.run)) == (False, 0)
    bulk.carry(str(action.pk))
    assert Counter(action.items.values_list("outcome", flat=True)) == {"done": 3}
    assert retries(first.run) == 1
