"""Whatever agents, tools, people and addresses say is text, on every page and in what sockets bring; and it fetches nothing."""

from urllib.parse import quote, urlsplit

from playwright.sync_api import expect

from reviews.models import Review
from runs.models import Alert, AlertRule, RunView
from tests.attacks import ATTACKS, SHORT
from tests.browser import hostile_world

MARKED = "document.querySelectorAll('[x5s], x5s, [hx-get*=canary], base, main iframe, main object').length"


def test_two_hundred_attacks_in_every_field_of_every_page_do_nothing(sign_in, act, people, address):
    assert len(ATTACKS) > 200
    ended, failed, waiting = act(hostile_world.make, people)
    page, asked = sign_in("admin"), []
    page.on("request", lambda request: asked.append(request.url))
    for path in paths(act, ended, failed, waiting):
        answer = page.goto(path, wait_until="domcontentloaded")
        assert answer.status in (200, 404), path
        page.locator("main details").evaluate_all(
            "all => all.forEach(fold => { fold.removeAttribute('name'); fold.open = true; })"
        )
        assert page.evaluate(MARKED) == 0, path
    for path in files(ended):
        answer = page.request.get(path)
        assert (answer.status, answer.headers["x-content-type-options"]) == (200, "nosniff"), path
        assert answer.headers["content-type"].split(";")[0] in ("text/csv", "application/json"), path
    inbox = sign_in("reviewer")
    inbox.goto("/reviews/")
    page.goto(f"/runs/{waiting.pk}/")
    expect(page.locator("#live")).to_have_text("Live")
    last = act(hostile_world.goes_on, waiting)
    expect(page.locator("#run-count")).to_have_text(f"all {last} events received")
    assert (page.evaluate(MARKED), inbox.evaluate(MARKED)) == (0, 0)
    assert {urlsplit(url).netloc for url in asked if not url.startswith("data:")} == {urlsplit(address).netloc}
    assert not [url for url in asked if "x5s-canary" in urlsplit(url).path]
    # a dialog, an error of a script or a violation of the policy fails the test in sign_in


def paths(act, ended, failed, waiting):
    """Every page there is, and what addresses may bring in."""
    review, past = act(lambda: [Review.objects.get(state=state).pk for state in ("open", "decided")])
    alerts, (rule,) = (
        act(lambda: list(Alert.objects.values_list("pk", flat=True))),
        act(lambda: list(AlertRule.objects.filter(built_in=None))),
    )
    (view,) = act(lambda: list(RunView.objects.values_list("pk", flat=True)))
    evil = quote(SHORT)
    of_a_run = [f"/runs/{run.pk}/{more}" for run in (ended, failed, waiting) for more in ("?open=all", "events/")]
    of_a_run += [
        f"/runs/{ended.pk}/{more}" for more in ("?step=3", f"?find={evil}", "?until=9", f"compare/{failed.pk}/", "steps/1/fork/")
    ]
    of_a_run += [f"/runs/{ended.pk}/parts/{name}/" for name in ("step-1", "event-2", "facts", "result")]
    of_a_review = [f"/reviews/{review}/{more}" for more in ("", "steps/", "reassign/", "snooze/", "take-over/")]
    of_lists = [
        f"{one}{query}" for one in ("/runs/", "/reviews/", "/reviews/history/") for query in ("", f"?text={evil}&agent={evil}")
    ]
    views = ["/runs/views/", f"/runs/views/{view}/", f"/runs/views/{view}/delete/", "/reviews/views/"]
    of_alerts = ["/alerts/", "/alerts/rules/", rule.get_absolute_url(), *(f"/alerts/{alert}/" for alert in alerts)]
    others = [
        "/",
        "/agents/",
        "/agents/guessing/",
        "/agents/guessing/start/",
        "/operations/",
        "/dependencies/",
        "/dependencies/shop/",
    ]
    others += ["/notices/", "/reviews/numbers/", f"/reviews/{past}/", f"/gone/{evil}/"]
    admins = ["/admin/runs/run/", f"/admin/runs/run/{ended.pk}/change/", "/admin/reviews/channel/", "/admin/auth/user/"]
    return [*others, *views, *of_alerts, *of_lists, *of_a_run, *of_a_review, *admins]


def files(run):
    found = ["/runs/export.csv", "/runs/export.json", "/reviews/export.csv", "/reviews/history/export.csv"]
    return [*found, f"/runs/{run.pk}/events/?format=json"]
