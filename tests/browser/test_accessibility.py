"""Every page in every state: no violation of WCAG 2.2 AA in either theme, and none wider than a telephone."""

import re
from datetime import timedelta

from django.db.models import F
from django.utils import timezone
from playwright.sync_api import expect

from reviews import claims, decisions, notices
from reviews.models import NoticeSettings, Review, SavedView
from runs import commands
from tests import agents
from tests.browser import cards
from tests.browser.pages import fits, look_at, unfold


def test_every_kind_of_card_in_each_of_its_states(sign_in, act, people, accessible):
    every = act(cards.every_card)
    reviewer2 = people["reviewer2"]
    act(Review.objects.filter(pk=every["of two"].pk).update, approvals=2)
    act(decisions.decide, every["of two"].pk, actor=reviewer2, kind="edit", seen=every["of two"].fingerprint, value=cards.EDITED)
    page = sign_in("reviewer")
    for review in every.values():
        look_at(page, review)
        page.locator("main details").evaluate_all(
            "all => all.forEach(fold => { fold.removeAttribute('name'); fold.open = true; })"
        )
        fits(page)
        accessible(page)
    unsure = every["low confidence"]
    look_at(page, unsure)
    unfold(page, "edit").get_by_label("Amount").fill("a lot")
    page.get_by_role("button", name="Approve as corrected").click()
    expect(page.get_by_text("Enter a number.")).to_be_visible()
    accessible(page)
    page.get_by_label("Amount").fill("2")
    expect(page.locator(".difference ins").first).to_have_text("2")
    accessible(page)
    act(decisions.decide, unsure.pk, actor=reviewer2, kind="edit", seen=unsure.fingerprint, value=cards.EDITED)
    expect(page.locator("#review-news")).to_contain_text("reviewer2 edited and approved it")
    fits(page)
    accessible(page)
    page.locator("#choice-edit form").evaluate("form => form.submit()")
    expect(page.get_by_role("alert")).to_contain_text("reviewer2 edited and approved it")
    fits(page)
    accessible(page)
    act(commands.cancel, every["question"].run_id, by="admin")
    gated = every["gated"]
    act(Review.objects.filter(pk=gated.pk).update, snoozed_until=timezone.now() + timedelta(hours=1))
    expired = every["of two"]
    act(Review.objects.filter(pk=expired.pk).update, state="expired", closed_at=timezone.now(), due_at=timezone.now())
    for closed_or_snoozed in (every["question"], expired, gated):
        page.goto(closed_or_snoozed.get_absolute_url())
        fits(page)
        accessible(page)
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    accessible(page)
    page.goto(f"/accounts/reauthenticate/?next={unsure.get_absolute_url()}")
    accessible(page)


def a_full_inbox(people):
    late, claimed, *others = [cards.stopped("guessing", f"message {number} {'w' * 80}") for number in range(5)]
    mine = cards.stopped("paying", "message of great risk")
    Review.objects.filter(pk=late.pk).update(due_at=timezone.now() - timedelta(minutes=2))
    Review.objects.filter(pk=mine.pk).update(assignee=people["reviewer"], due_at=timezone.now() + timedelta(hours=2))
    claims.claim(claimed.pk, people["reviewer2"])
    decided = cards.stopped("guessing", "decided")
    decisions.decide(decided.pk, actor=people["reviewer"], kind="reject", seen=decided.fingerprint, reason="It is not red.")
    notices.tell_due()
    NoticeSettings.objects.create(user=people["reviewer"], last_error="451 come back later")
    SavedView.objects.create(owner=people["reviewer"], name="what failed", query="cause=failed")
    return late, claimed, others, mine


def test_every_page_of_the_inbox(sign_in, act, people, accessible):
    page = sign_in("reviewer")
    for address in ("/reviews/", "/reviews/history/", "/reviews/numbers/", "/reviews/views/", "/notices/"):
        page.goto(address)  # with nothing in it
        accessible(page)
    late, claimed, others, mine = act(a_full_inbox, people)
    one = mine.get_absolute_url()
    pages = ["/reviews/", "/reviews/?cause=failed&risk=2", "/reviews/?state=decided", "/reviews/views/?cause=failed"]
    pages += ["/reviews/history/", "/reviews/history/?by=nobody", "/reviews/numbers/", "/notices/"]
    (kept,) = act(list, SavedView.objects.values_list("pk", flat=True))
    pages += [f"/reviews/views/{kept}/", f"/reviews/views/{kept}/delete/"]
    pages += [f"{one}reassign/", f"{one}snooze/", f"{claimed.get_absolute_url()}take-over/"]
    for address in pages:
        page.goto(address)
        fits(page)
        accessible(page)
    page.goto("/reviews/")
    expect(page.locator("body[data-seen]")).to_be_attached()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    accessible(page)
    page.get_by_role("button", name="Close").click()
    heights = page.locator("[data-row]").evaluate_all("all => all.map((one) => one.getBoundingClientRect().height)")
    assert max(heights) < 62, "a row is at most two lines"
    page.get_by_text("More filters").click()
    page.get_by_role("checkbox").first.check()
    accessible(page)
    for review in (late, *others):
        page.locator(f'[data-row="{review.pk}"]').get_by_role("checkbox").check()
    page.get_by_role("button", name="Decide the 4 ticked").click()
    expect(page.get_by_role("heading", name=re.compile("Decide (. of )?. reviews together"))).to_be_visible()
    fits(page)
    accessible(page)
    page.get_by_role("button", name="Reject").click()
    expect(page.get_by_text("a rejection needs a reason")).to_be_visible()
    accessible(page)
    page.get_by_role("button", name="Approve").click()
    expect(page.get_by_role("heading", name="Done")).to_be_visible()
    fits(page)
    accessible(page)
    act(fold, claimed)
    page.goto("/reviews/")
    expect(page.get_by_text("alike of run")).to_be_visible()
    fits(page)
    accessible(page)


def fold(review):
    """Its run asks many alike questions at once."""
    for _ in range(4):
        cards.stopped("guessing")
    Review.objects.open().filter(cause="low_confidence").exclude(pk=review.pk).update(run_id=review.run_id, position=F("pk"))


def test_every_page_of_runs(sign_in, act, carry, accessible):
    agents.FAILURES["tumble"] = [agents.AskHuman("Nobody knows")]
    kinds = [("counting", {}), ("paying", {}), ("guessing", {}), ("asking", {}), ("stumbling", {"text": "tumble"})]
    long = {"text": "Donaudampfschifffahrtsgesellschaft" * 20}
    runs = [act(commands.start, slug, long | given, by="operator") for slug, given in kinds]
    carry()
    page = sign_in("admin")
    paths = ["/", "/runs/", "/runs/?text=nothing", "/agents/", "/agents/counting/", "/agents/counting/start/", "/operations/"]
    paths += [f"/runs/{run.pk}/?open=all" for run in runs] + ["/dependencies/", "/about/", "/accounts/password/change/", "/gone/"]
    paths += [f"/runs/{runs[0].pk}/{page}" for page in ("events/", "steps/1/fork/", "?until=5", f"compare/{runs[2].pk}/")]
    for path in paths:
        page.goto(path)
        fits(page)
        page.set_viewport_size({"width": 360, "height": 900})
        inner = page.locator(".topbar nav, .rows, main .card:has(> .rows)")
        assert inner.evaluate_all("all => all.filter(one => one.scrollWidth > one.clientWidth).map(one => one.className)") == []
        page.set_viewport_size({"width": 1280, "height": 900})
        accessible(page)
    stranger = sign_in()
    stranger.goto("/accounts/login/")
    accessible(stranger)
    many_runs_together(page, runs, act, accessible)


def many_runs_together(page, runs, act, accessible):
    """Ticked, looked at, cancelled, and told of; the list stands still as long as one is ticked."""
    page.goto("/runs/bulk/")
    accessible(page)
    page.goto("/runs/")
    expect(page.locator("#live")).to_have_text("Live")
    for run in runs[:2]:
        page.get_by_label(f"Tick run {run.pk}").check()
    expect(page.locator("#tick-count")).to_have_text("2")
    with page.expect_response(re.compile("/runs/$")):
        act(commands.start, "counting", {"text": "another one"}, by="operator")
    expect(page.get_by_label(f"Tick run {runs[0].pk}")).to_be_checked()
    page.get_by_label("Tick all runs of this page").check()
    expect(page.locator("#tick-count")).to_have_text(str(len(runs)))
    fits(page)
    accessible(page)
    page.get_by_role("button", name="Cancel the ticked").click()
    expect(page.get_by_role("heading", name="Cancel 4 runs")).to_be_visible()
    expect(page.get_by_text("1 · Has ended already (succeeded)")).to_be_visible()
    fits(page)
    accessible(page)
    page.get_by_role("button", name="Yes, cancel 4 runs").click()
    expect(page.get_by_role("heading", name="Done")).to_be_visible()
    expect(page.locator("#bulk-progress")).to_contain_text("Cancelled 4")
    fits(page)
    accessible(page)
