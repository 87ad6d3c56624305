"""What pages say of runs that start, fork or wait for others: parents and children, several questions, times."""

import re
from datetime import timedelta

import pytest
from django.utils import timezone

from reviews.models import Review
from runs import commands, event_log, executor, sdk
from runs.engine import canonical
from runs.engine.canonical import INLINE_LETTERS
from runs.models import Run, RunStatus, search
from tests import agents
from tests.test_pages_runs import start

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def only_known_agents(monkeypatch):
    monkeypatch.setattr(sdk, "AGENTS", dict(sdk.AGENTS))


def on(run):
    executor.advance(run.pk, owner="test")
    return Run.objects.get(pk=run.pk)


def carried(supervisor, slug="supervising", **given):
    supervisor.__annotations__ = {"run": sdk.Run, "order": agents.Order, "return": agents.Answer}
    sdk.agent(slug, title="Supervising", version="1")(supervisor)
    return on(commands.start(slug, {"text": "all of them"} | given, by="operator"))


def why(page):
    return " ".join(re.search(r'id="run-why">(.*?)</p>', page, re.DOTALL)[1].split())


def fanning_out(run, order):
    children = run.spawn_many("start", "counting", [{"text": f"part {number}", "number": 1} for number in range(order.number)])
    return agents.Answer(said=" ".join(outcome.status for outcome in run.join(*children)))


@pytest.mark.parametrize("inline", [INLINE_LETTERS, 80], ids=["in its event", "set apart"])
def test_the_retry_of_a_child_says_that_its_parent_has_gone_on_without_it(signed_in, monkeypatch, inline):
    def supervisor(run, order):
        read, other = run.spawn("read", "counting", {"text": "x"}), run.spawn("other", "counting", {"text": "y"})
        run.join(read, name="first")
        run.step("look", agents.pay.gated("look"), amount=1)
        return agents.Answer(said=run.join(other)[0].status)

    for module in (canonical, event_log):
        monkeypatch.setattr(module, "INLINE_LETTERS", inline)
    client, run = signed_in(), carried(supervisor)
    read, other = run.children.order_by("pk")
    for child in (read, other):
        commands.cancel(child.pk, by="operator")
    plain, warned = "Retry from where it ended</button>", f">run {run.pk}</a>, has already gone on without it: what"
    assert [plain in actions(client, child) for child in (read, other)] == [True, True]
    assert on(run).waiting_cause == "person"
    assert [(plain in actions(client, one), warned in actions(client, one)) for one in (read, other)] == [
        (False, True),
        (True, False),
    ]
    assert f"Yes, retry run {read.pk}</button>" in actions(client, read)
    commands.cancel(run.pk, by="operator")
    assert f">run {run.pk}</a>, has already ended: what" in actions(client, other)


def actions(client, run):
    page, part = client.get(f"/runs/{run.pk}/").text, client.get(f"/runs/{run.pk}/parts/actions/").text
    assert ("has already" in page) == ("has already" in part)
    return part


def test_a_parent_says_how_many_children_it_waits_for_and_lists_them(signed_in, monkeypatch):
    monkeypatch.setattr("runs.timeline.CHILDREN_SHOWN", 2)
    client, run = signed_in(), carried(fanning_out, number=3)
    children = list(run.children.order_by("pk"))
    assert why(client.get(f"/runs/{run.pk}/").text) == "It waits for 3 of the 3 runs that it started."
    commands.cancel(on(children[0]).pk + 1, by="operator")
    page = client.get(f"/runs/{run.pk}/").text
    assert why(page) == "It waits for 1 of the 3 runs that it started."
    assert f'hx-get="/runs/{run.pk}/parts/related/" hx-trigger="every 5s"' in page
    related = client.get(f"/runs/{run.pk}/parts/related/").text
    assert [f'href="/runs/{child.pk}/"' in related for child in children] == [True, True, False]
    assert f'<a href="/runs/?parent={run.pk}">all 3 children</a>' in related
    assert {row.pk for row in client.get("/runs/", {"parent": run.pk}).context["page"].rows} == {one.pk for one in children}
    assert f'<dt>Started by</dt><dd><a href="/runs/{run.pk}/">run {run.pk}</a>' in client.get(f"/runs/{children[0].pk}/").text
    on(children[2])
    assert on(run).output == {"said": "succeeded cancelled succeeded"}
    page = client.get(f"/runs/{run.pk}/?open=all").text
    assert "every 5s" not in page
    assert re.search(r"<span>waited [\d.]+ m?s</span>", page)


def listed(client, **query):
    page = client.get("/runs/", query)
    return [run.pk for run in page.context["page"].rows], page.text


def test_lists_hide_children_count_them_on_the_parent_and_show_them_when_asked(signed_in):
    client, run = signed_in(), carried(fanning_out, number=3)
    children = sorted((child.pk for child in run.children.all()), reverse=True)
    hidden, page = listed(client)
    assert hidden == [run.pk]
    assert re.search(rf'<a class="text-nowrap" id="run-children-{run.pk}" href="/runs/\?parent={run.pk}">3 children</a>', page)
    assert listed(client, children="show")[0] == [*children, run.pk]
    assert listed(client, parent=run.pk)[0] == children
    assert f'<a id="run-parent-{children[0]}" href="/runs/{run.pk}/">run {run.pk}</a>' in listed(client, parent=run.pk)[1]
    search.fill()
    assert "or have children shown" in listed(client, text="part 1")[1]
    assert len(listed(client, text="part 1", children="show")[0]) == 1
    dashboard = client.get("/")
    assert [one.pk for one in dashboard.context["runs"]] == [run.pk]
    assert dict(dashboard.context["counts"]) | {"waiting": 0} == dict.fromkeys(RunStatus.values, 0)
    assert '<a class="text-nowrap" id="count-children" href="/runs/?children=show">and 3 children</a>' in dashboard.text
    assert "<strong>3</strong>" in client.get("/agents/counting/").text


def test_pages_of_the_list_are_whole_where_children_stand_between_the_runs(signed_in, django_assert_num_queries):
    client, parents = signed_in(), []
    for _ in range(2):
        parents.append(carried(fanning_out, number=30).pk)
        parents += [start().pk for _ in range(26)]
    Run.objects.update(created_at=timezone.now())  # all at once: the id decides
    seen, query = [], "/runs/"
    client.get(query)
    while query:
        # session, person, permissions, runs, their count, why they wait, reviews, agents, counts, views, what is done together
        with django_assert_num_queries(11):
            page = client.get(query).context["page"]
        seen += [run.pk for run in page.rows]
        query = page.older and f"/runs/{page.older}"
    assert seen == sorted(parents, reverse=True)


def test_a_child_says_which_run_started_it_and_for_whom(signed_in):
    run = carried(fanning_out, number=1)
    page = signed_in().get(run.children.get().get_absolute_url()).text
    assert f'<dt>Started by</dt><dd><a href="/runs/{run.pk}/">run {run.pk}</a> (Supervising), for operator, <time' in page
    assert f"Run {run.pk} started a run of counting, version 1, for operator." in page
    assert "It waits for the run that it started." in signed_in().get(run.get_absolute_url()).text


def test_a_fork_takes_over_the_children_or_starts_its_own(signed_in):
    run = carried(fanning_out, number=2)
    for child in run.children.all():
        on(child)
    run = on(run)
    joined = on(commands.fork(run.pk, step=2, by="operator"))
    assert (joined.status, joined.output, joined.children.count()) == ("succeeded", run.output, 0)
    page = signed_in().get(f"/runs/{run.pk}/steps/1/fork/").text
    assert "<li>step 1 (Start Counting)</li>" in page
    assert "Step 1 has no worker: the supervisor gives its input." in page
    assert signed_in().post(f"/runs/{run.pk}/steps/1/fork/", {"config": "recorded"}).status_code == 302
    again = on(Run.objects.get(forked_from=run, forked_step=1))
    assert (again.status, again.children.count()) == ("waiting", 2)


def test_a_fork_that_took_over_open_children_waits_for_them_too():
    run = carried(fanning_out, number=1)
    forked = on(commands.fork(run.pk, step=2, by="operator"))
    assert (forked.status, forked.waiting_runs) == ("waiting", run.waiting_runs)
    on(run.children.get())
    assert set(Run.objects.due()) == {run, forked}
    assert on(forked).output == on(run).output == {"said": "succeeded"}


def test_several_questions_are_counted_and_each_has_its_review(signed_in):
    def asking_twice(run, order):
        asks = [sdk.call(f"ask_{number}", sdk.ask_human(agents.Choice), question="Which?") for number in (1, 2)]
        return agents.Answer(said=" ".join(choice.colour for choice in run.gather(*asks)))

    run = carried(asking_twice)
    first, second = Review.objects.open().filter(run=run).order_by("pk")
    said = why(signed_in().get(f"/runs/{run.pk}/").text)
    assert said.startswith("It waits for a person at 2 steps. ")
    assert re.findall(r'href="/reviews/(\d+)/"', said) == [str(first.pk), str(second.pk)]
    commands.decide(run.pk, 1, "answer", by="reviewer", fingerprint=first.fingerprint, value={"colour": "red", "amount": 1})
    Review.objects.filter(pk=first.pk).update(state="decided")
    assert why(signed_in().get(f"/runs/{on(run).pk}/").text).startswith("It waits for a person at step 2 (Ask a person)")


def plain(page):
    """Without the elements that make times count."""
    return re.sub("</?time[^>]*>", "", page)


def test_a_wait_says_until_when(signed_in):
    def sleeping(run, order):
        run.sleep_until("wait", timezone.now() + timedelta(days=3))
        return agents.Answer(said="slept")

    run = carried(sleeping)
    page = signed_in().get(f"/runs/{run.pk}/").text
    assert plain(why(page)) == f"It waits and goes on at {run.wake_at:%Y-%m-%d %H:%M} UTC."


def test_a_deadline_is_said_on_both_pages_and_so_is_that_it_has_passed(signed_in, monkeypatch):
    def asking_in_time(run, order):
        try:
            return agents.Answer(said=run.step("ask", sdk.ask_human(agents.Choice, within=86_400 * 2), question="Which?").colour)
        except sdk.Expired:
            return agents.Answer(said="nobody")

    run = carried(asking_in_time)
    review = Review.objects.get(run=run)
    when = run.wake_at
    assert f"It goes on without an answer at {when:%Y-%m-%d %H:%M} UTC." in plain(signed_in().get(f"/runs/{run.pk}/").text)
    page = signed_in().get(f"/reviews/{review.pk}/").text
    assert "by itself</strong>" in page
    assert f'title="{when:%Y-%m-%d %H:%M:%S} UTC"' in page
    Run.objects.filter(pk=run.pk).update(wake_at=timezone.now())
    monkeypatch.setattr(event_log, "now", lambda: timezone.now() + timedelta(days=3))
    assert on(run).output == {"said": "nobody"}
    page = signed_in().get(f"/reviews/{review.pk}/").text
    assert "Nobody decided in time, and the run went on without an answer" in page
    assert "Expired</span>" in page
    assert "Expired</span>" in signed_in().get(f"/runs/{run.pk}/").text
    forked = on(commands.fork(run.pk, step=1, by="operator"))
    assert (forked.status, forked.wake_at > when) == ("waiting", True)
