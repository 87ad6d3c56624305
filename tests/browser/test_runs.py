"""What a person sees of runs in a real browser: start, watch live, cancel, read; with and without scripts."""

import re
from datetime import timedelta
from random import Random

import pytest
from django.utils import timezone
from playwright.sync_api import expect

from agentops.seeding import filling
from agentops.seeding.story import Story
from runs import commands, event_log, executor, sdk
from runs.engine.events import Draft, Kind
from runs.models import Run
from tests import agents
from tests.cast import PASSWORD

DARK, LIGHT = "rgb(14, 21, 29)", "rgb(247, 248, 250)"


def start(slug="counting", **given):
    return commands.start(slug, {"text": "a message"} | given, by="operator")


def test_an_operator_signs_in_starts_a_run_and_watches_it_finish(sign_in, carry):
    page = sign_in()
    page.goto("/")
    page.get_by_label("Username").fill("operator")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.goto("/agents/counting/start/")
    page.get_by_label("Text").fill("Count for me")
    page.get_by_role("button", name="Start the run").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Run")
    expect(page.locator("#live")).to_have_text("Live")
    expect(page.locator("#run-state")).to_contain_text("Queued")
    carry()
    expect(page.locator("#run-state")).to_contain_text("Succeeded")
    expect(page.locator("#steps > li")).to_have_count(3)
    expect(page.locator("#run-result")).to_contain_text("Said")
    expect(page.get_by_role("button", name="Yes, cancel")).to_have_count(0)


def test_nothing_is_missed_or_doubled_in_two_tabs_late_and_after_a_lost_connection(sign_in, act, carry):
    run = act(start, number=12)
    early, sockets = sign_in("operator"), []
    early.route_web_socket("**/ws/**", lambda socket: (socket.connect_to_server(), sockets.append(socket)))
    early.goto(f"/runs/{run.pk}/")
    expect(early.locator("#live")).to_have_text("Live")
    sockets[0].close(code=1012)
    expect(early.locator("#live")).to_have_text("Reconnecting, the page may be old")
    carry()
    late = sign_in("reviewer")
    late.goto(f"/runs/{run.pk}/")
    last = act(Run.objects.get, pk=run.pk).last_seq
    for page in (early, late):
        expect(page.locator("#run-count")).to_have_text(f"all {last} events received", timeout=30_000)
        expect(page.locator("#steps > li")).to_have_count(12)
        seqs = page.locator("#events > li").evaluate_all("all => all.map(one => Number(one.dataset.seq))")
        assert seqs == list(range(1, last + 1))


def test_steps_of_a_long_run_stay_in_their_order_whichever_ends_first(sign_in, act):
    def begun(*positions, **more):
        said = {"worker": "agents.count", "title": "Count", "fingerprint": "", "input": {}, "effect": "none", "attempt": 1} | more
        return [Draft(Kind.STEP_STARTED, said | {"name": f"count_{place}"}, place) for place in positions]

    def ended(*positions):
        return [Draft(Kind.STEP_SUCCEEDED, {"output": place}, place) for place in positions]

    log, opening = act(lambda: event_log.take(start().pk, owner="a process"))
    act(log.append, opening, *begun(*range(1, 91)))
    page = sign_in("operator")
    page.goto(f"/runs/{log.run_id}/")
    expect(page.locator("#live")).to_have_text("Live")
    page.locator("#step-12-body > summary").press("Enter")
    expect(page.locator("#step-12-body dl")).to_contain_text("Worker")
    failures = iter([True])
    page.route("**/parts/step-91/", lambda route: route.abort() if next(failures, False) else route.continue_())
    act(log.append, *ended(3, 12, 88), *begun(91, input={"words": ["many words " * 30] * 150}), *begun(*range(92, 102)))
    expect(page.locator("#step-88")).to_contain_text("Succeeded")
    expect(page.locator("#step-91")).to_contain_text("Running")
    expect(page.locator("#step-101")).to_be_visible()
    assert next(failures, None) is None, "it was asked for twice"
    expect(page.locator("#step-12-body > summary")).to_be_focused()
    expect(page.locator("#step-12 rect")).to_have_count(0)
    expect(page.locator("#steps-earlier")).to_have_text("Steps before step 22")
    rows = page.locator("#steps > li").evaluate_all("rows => rows.map(row => row.id)")
    assert rows == ["step-12", *(f"step-{n}" for n in range(22, 102))], "what somebody is at stays"
    expect(page.locator("#bar-101 rect")).to_have_count(1)
    expect(page.locator("#run-count")).to_have_text("all 106 events received")


def long_ago(steps):
    """A run of so many steps."""
    now = timezone.now()
    story = Story(Random(1), now - timedelta(hours=1), now)
    said = {"agent": "counting", "agent_version": "1", "input": {}, "summary": "long", "config": {"version": 1}}
    story.requested(said, by="operator")
    for number in range(steps):
        story.begins(f"look_{number}", "long.look", "Look", {})
        story.gives(number, seconds=0.01)
    return filling.write_one(story)


OVER_ONE_ANOTHER = """texts => {
    const seen = texts.map(one => one.getBoundingClientRect()).filter(box => box.width).sort((a, b) => a.left - b.left);
    return [seen.length, seen.filter((box, index) => index && box.left < seen[index - 1].right).length];
}"""


def test_on_a_narrow_page_the_times_of_the_axis_do_not_stand_over_one_another(sign_in, act):
    run_id = act(long_ago, 600)
    page = sign_in("operator", width=390)
    page.goto(f"/runs/{run_id}/")
    many, over = page.locator("#run-axis text").evaluate_all(OVER_ONE_ANOTHER)
    assert (many > 2, over) == (True, 0)


def test_many_events_are_counted_in_thousands(sign_in, act):
    run_id = act(long_ago, 600)
    page = sign_in("operator")
    page.goto(f"/runs/{run_id}/")
    expect(page.locator("#run-count")).to_have_text("all 1,202 events received")


def test_what_was_opened_stays_open_while_the_page_is_live(sign_in, act, carry):
    run = act(start, "paying")
    page = sign_in("operator")
    carry()
    page.goto(f"/runs/{run.pk}/")
    expect(page.locator("#live")).to_have_text("Live")
    page.get_by_text("Cancel run", exact=True).click()
    page.get_by_label("Reason").fill("Because I am writing")
    act(commands.cancel, run.pk, by="admin")
    expect(page.locator("#run-state")).to_contain_text("Cancelled")
    expect(page.get_by_label("Reason")).to_have_value("Because I am writing")


MANY_PARTS = """() => {
  const parts = Array.from({ length: 501 }, (_, number) => ({ id: `event-${number + 1000}`, html: "" }));
  const message = new CustomEvent("socket:message", { bubbles: true, detail: { seq: null, parts } });
  document.querySelector("[data-socket]").dispatchEvent(message);
}"""


def test_who_stopped_following_sees_the_bars_come_up_to_date_when_they_follow_again(sign_in, act, carry):
    run = act(start, number=4)
    page = sign_in("operator")
    page.goto(f"/runs/{run.pk}/")
    expect(page.locator("#live")).to_have_text("Live")
    page.get_by_role("button", name="Stop following").click()
    carry()
    expect(page.get_by_role("button", name="Follow (")).to_contain_text("new")
    expect(page.locator("#steps > li")).to_have_count(0)
    page.get_by_role("button", name="Follow (").click()
    last = act(Run.objects.get, pk=run.pk).last_seq
    expect(page.locator("#run-count")).to_have_text(f"all {last} events received")
    expect(page.locator("#bar-4 rect.work")).to_have_count(1)
    expect(page.locator("#run-news")).to_have_text("The run succeeded.")
    page.get_by_role("button", name="Stop following").click()
    page.evaluate(MANY_PARTS)
    page.get_by_role("button", name="Follow (more than 500 new)").click()
    expect(page.locator("#follow")).to_have_count(0)  # a new page, of a run that has ended
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    for fold in ("body", "raw"):
        page.locator(f"#step-4-{fold} > summary").click()
    copy = page.locator("#step-4-raw [data-copy]")
    copy.click()
    expect(copy).to_have_text("Copied")
    page.route("**/events/?step=4*", lambda route: route.fulfill(status=503, body="Not now"))
    copy.click()
    expect(copy).to_have_text("Not copied: download it")
    page.get_by_role("link", name="Go back in time").click()
    expect(page.get_by_role("slider", name="Event")).to_be_focused()
    page.wait_for_load_state()  # it is focused before the scripts are there
    for seq in (last - 1, last - 2):
        page.keyboard.press("ArrowLeft")
        expect(page.locator("#past")).to_contain_text(f"Event {seq} of {last}")
    expect(page.locator("#step-4")).to_contain_text("Running")
    expect(page).to_have_url(re.compile(rf"until={last - 2}$"))


def test_a_live_page_opens_and_closes_steps_as_a_fresh_one_but_for_what_a_person_chose(sign_in, act, carry):
    run = act(start, "paying")
    carry()
    live, chosen, every = (sign_in("operator") for _ in range(3))
    for page in (live, chosen, every):
        page.goto(f"/runs/{run.pk}/{'?open=all' if page is every else ''}")
        expect(page.locator("#live")).to_have_text("Live")
        expect(page.locator("#step-1-body")).to_have_attribute("open", "")
    for _ in range(2):  # closed and opened again
        chosen.locator("#step-1-body > summary").press("Enter")
    chosen.locator("#step-1-raw > summary").press("Enter")
    act(commands.cancel, run.pk, by="admin")
    for page in (live, chosen, every):
        expect(page.locator("#step-1")).to_contain_text("Cancelled")
    expect(live.locator("#step-1-body")).not_to_have_attribute("open", "")
    for part in ("body", "raw"):
        expect(chosen.locator(f"#step-1-{part}")).to_have_attribute("open", "")
    expect(every.locator("#step-1-body")).to_have_attribute("open", "")


def test_a_parent_counts_its_open_children_while_the_page_is_open(sign_in, act, monkeypatch):
    def supervisor(run, order):
        run.join(*run.spawn_many("start", "counting", [{"text": "one"}, {"text": "another"}]))
        return agents.Answer(said="both")

    monkeypatch.setattr(sdk, "AGENTS", dict(sdk.AGENTS))
    supervisor.__annotations__ = {"run": sdk.Run, "order": agents.Order, "return": agents.Answer}
    sdk.agent("starting", title="Starting", version="1")(supervisor)
    run = act(start, "starting")
    page = sign_in("operator")
    page.goto(f"/runs/{run.pk}/")
    expect(page.locator("#live")).to_have_text("Live")
    act(executor.advance, run.pk, owner="test")
    expect(page.locator("#run-why")).to_have_text("It waits for 2 of the 2 runs that it started.")
    act(executor.advance, run.pk + 1, owner="test")
    expect(page.locator("#run-why")).to_have_text("It waits for 1 of the 2 runs that it started.", timeout=15_000)
    expect(page.locator("#run-related")).to_contain_text("Succeeded 1", timeout=15_000)


def test_the_list_and_the_dashboard_show_new_runs_by_themselves(sign_in, act):
    runs, dashboard = sign_in("operator"), sign_in("operator")
    runs.goto("/runs/")
    dashboard.goto("/")
    expect(runs.get_by_text("There is no run yet")).to_be_visible()
    for page in (runs, dashboard):
        expect(page.locator("#live")).to_have_text("Live")
    act(start, text="a run from elsewhere")
    for page in (runs, dashboard):
        expect(page.get_by_text("a run from elsewhere")).to_be_visible()


def test_a_live_list_leaves_the_focus_where_it_is_and_counts_what_waits(sign_in, act, carry):
    first = act(start, "paying")
    page = sign_in("operator")
    page.goto("/")
    expect(page.locator("#live")).to_have_text("Live")
    page.locator(f"#run-link-{first.pk}").focus()
    second = act(start, text="the next one")
    expect(page.get_by_text("the next one")).to_be_visible()
    expect(page.locator(f"#run-link-{first.pk}")).to_be_focused()
    carry()
    expect(page.locator("#nav-count")).to_have_text("1 open")
    expect(page.locator("#runs tr", has=page.locator(f"#run-link-{second.pk}"))).to_contain_text("Succeeded")


def test_a_page_opened_while_queued_says_when_it_was_taken_and_counts_what_waits_elsewhere(sign_in, act, carry):
    run = act(start)
    page = sign_in("reviewer")
    page.goto(f"/runs/{run.pk}/")
    expect(page.locator("#live")).to_have_text("Live")
    expect(page.locator("#run-facts")).to_contain_text("not yet")
    act(start, "paying")
    carry()
    expect(page.locator("#run-facts")).not_to_contain_text("not yet")
    expect(page.locator("#nav-count")).to_have_text("1 open")


NEVER_OPENS = "window.WebSocket = class {};"


def test_a_page_warns_only_when_the_connection_keeps_it_waiting(sign_in):
    page = sign_in("operator")
    page.add_init_script(NEVER_OPENS)
    page.goto("/")
    expect(page.locator("#live")).to_have_text("Connecting")
    expect(page.locator("#live")).to_have_text("Not live yet: reload to see what is new")
    without = sign_in("operator", script=False)
    without.goto("/")
    # Playwright switches scripts off after the parser has decided that there are some
    assert "<noscript>Not live: reload to see what is new</noscript>" in without.content()


def test_an_event_with_a_long_message_stays_a_line_until_it_is_opened(sign_in, act, carry):
    run = act(start, "asking", text="many words " * 350)
    carry()
    page = sign_in("operator")
    page.goto(f"/runs/{run.pk}/")
    page.locator("#event-1 > details > summary").click()
    fold = page.locator("#event-1 .fold")
    expect(fold.locator("summary")).to_contain_text("JSON of")
    assert fold.bounding_box()["height"] < 60
    assert fold.locator("pre").is_hidden()


def test_a_run_can_be_started_and_cancelled_without_scripts(sign_in, act):
    page = sign_in("operator", script=False)
    page.goto("/agents/paying/start/")
    page.get_by_label("Text").fill("No scripts here")
    page.get_by_role("button", name="Start the run").click()
    page.get_by_text("Cancel run", exact=True).click()
    page.get_by_role("button", name="Yes, cancel").click()
    expect(page.locator("#run-state")).to_contain_text("Cancelled")
    assert act(Run.objects.get).status == "cancelled"


def test_the_keyboard_reaches_what_matters(sign_in, act):
    act(start)
    page = sign_in("operator")
    page.goto("/runs/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()


def test_a_menu_closes_with_escape_and_gives_the_focus_back(sign_in):
    page = sign_in("operator")
    page.goto("/")
    page.locator("summary", has_text="operator").press("Enter")
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Sign out")).to_be_hidden()
    expect(page.locator("summary", has_text="operator")).to_be_focused()


def test_the_theme_follows_the_system_also_without_scripts_until_somebody_chooses(sign_in):
    page, without = sign_in("operator", theme="dark", own=True), sign_in("operator", theme="dark", script=False)
    for one in (without, page):
        one.goto("/")
        expect(one.locator("body")).to_have_css("background-color", DARK)
    switch = page.get_by_role("button", name="Switch between dark and light")
    switch.click()
    page.reload()
    expect(page.locator("body")).to_have_css("background-color", LIGHT)
    switch.click()  # what the system says: it is followed again
    expect(page.locator("body")).to_have_css("background-color", DARK)
    page.emulate_media(color_scheme="light")
    expect(page.locator("body")).to_have_css("background-color", LIGHT)


def test_a_run_is_forked_from_the_keyboard_and_without_scripts(sign_in, act, carry):
    run = act(start, number=2)
    carry()
    page = sign_in("operator", script=False)
    page.goto(f"/runs/{run.pk}/?open=all")
    page.locator("#fork-2").focus()
    page.keyboard.press("Enter")
    page.get_by_label("Number").fill("40")
    page.keyboard.press("Enter")
    expect(page.get_by_text("You changed the input below.")).to_be_visible()
    page.get_by_label("Give the step the input below").press("Space")
    page.get_by_role("button", name="Fork from step 2").press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Run {run.pk + 1}")
    carry()
    page.reload()
    expect(page.locator("#run-result")).to_contain_text("41")


def test_an_element_that_a_script_has_styled_is_renewed_without_a_word_of_the_policy(sign_in, opened):
    """What it says, the fixture fails with: htmx would write the style of the old element to the new one as an attribute."""
    page = sign_in("operator")
    page.goto("/")
    page.locator("#nav-count").evaluate("one => one.style.setProperty('opacity', '.5')")
    opened("guessing")
    page.evaluate("document.body.dispatchEvent(new Event('changed'))")
    expect(page.locator("#nav-count")).to_have_text("1 open")
    assert page.locator("#nav-count").get_attribute("style") is None


@pytest.mark.parametrize("width", [320, 390])
def test_the_navigation_of_a_narrow_page_is_whole_and_its_numbers_hide_no_picture(sign_in, opened, width):
    opened("guessing")
    page = sign_in("admin", width=width)
    page.goto("/")
    expect(page.locator("#nav-count")).to_have_text("1 open")
    assert page.locator(".topbar nav .nav-link").count() == 8
    assert page.locator(".topbar nav").evaluate("one => one.scrollWidth <= one.clientWidth")
    own, next_one = "one.closest('a')", "one.closest('a').nextElementSibling"
    picture = "querySelector('svg').getBoundingClientRect()"
    assert page.locator("#nav-count").evaluate(f"one => one.getBoundingClientRect().left - {own}.{picture}.right") >= -1
    page.locator("#nav-count").evaluate("one => { one.firstChild.data = '35'; }")
    assert page.locator("#nav-count").evaluate(f"one => {next_one}.{picture}.left - one.getBoundingClientRect().right") >= 0
    assert page.locator(".topbar nav").evaluate("one => one.scrollWidth <= one.clientWidth")
