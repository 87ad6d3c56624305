"""Every page in every state: no violation of WCAG 2.2 AA in either theme, and none wider than a telephone."""

import re
from datetime import timedelta

from django.db.models import F
from django.utils import timezone
from playwright.sync_api import expect

from reviews import claims, decisions, notices
from reviews.models import Cause, NoticeSettings, Review
from runs import commands, event_log, executor, policies, sdk
from runs.engine.events import Draft, Kind
from runs.models import Run
from tests import agents
from tests.browser.pages import ATTACK, fits, look_at, unfold

EDITED = {"colour": "green", "amount": 1}


def stopped(slug, text="a message", number=3):
    """The review at which a new run of the agent stops, or one about a step that it did not stop at."""
    run = commands.start(slug, {"text": text, "number": number}, by="operator")
    executor.advance(run.pk, owner="test")
    return Review.objects.select_related("run").open().get(run=run)


def of_unknown_outcome():
    """A payment whose process was killed in the middle of it."""
    review = stopped("paying", "of unknown outcome")
    commands.decide(review.run_id, 1, "approve", by="reviewer", fingerprint=review.fingerprint)
    Review.objects.filter(pk=review.pk).update(state="decided")
    log, opening = event_log.take(review.run_id, owner="killed")
    log.append(opening, Draft(Kind.ATTEMPT_STARTED, {"attempt": 1, "remark": ""}, 1))
    Run.objects.filter(pk=review.run_id).update(lease_until=timezone.now())
    executor.advance(review.run_id, owner="test")
    return Review.objects.open().get(run=review.run_id, cause="outcome_unknown")


def of_changed_code():
    """A question before which the code counts since it was asked."""

    def supervisor(run: sdk.Run, order: agents.Order) -> agents.Answer:
        run.step("count", agents.count, number=1)
        return agents.Answer(said="?")

    review, known = stopped("asking", "of changed code"), sdk.AGENTS.pop("asking")
    try:
        sdk.agent("asking", title="Asking", version="2")(supervisor)
        commands.decide(review.run_id, 1, "answer", by="reviewer", fingerprint=review.fingerprint, value=EDITED)
        Review.objects.filter(pk=review.pk).update(state="decided")
        executor.advance(review.run_id, owner="test")
    finally:
        sdk.AGENTS["asking"] = known
    return Review.objects.open().get(run=review.run_id, cause="code_changed")


def of_a_budget():
    commands.configure("consuming", by="admin", run_money="0.20")
    return stopped("consuming", "line")


def of_a_sample():
    policies.configure(by="admin", agent="guessing", sample_share=1.0)
    return stopped("guessing", "a sample", 9)


def every_card():
    agents.FAILURES["tired"] = [sdk.GiveUp("the bank said no")]
    cards = {
        "gated": stopped("paying", "x" * 3000),
        "low confidence": stopped("guessing", ATTACK),
        "question": stopped("asking", "w" * 300),
        "failed": stopped("stumbling", "tired"),
        "outcome unknown": of_unknown_outcome(),
        "code changed": of_changed_code(),
        "budget": of_a_budget(),
        "sample": of_a_sample(),
        "of two": stopped("guessing", "of two"),
    }
    assert set(Review.objects.values_list("cause", flat=True)) == set(Cause.values), "each cause has a card here"
    return cards


def test_every_kind_of_card_in_each_of_its_states(sign_in, act, people, accessible):
    cards = act(every_card)
    reviewer2 = people["reviewer2"]
    act(Review.objects.filter(pk=cards["of two"].pk).update, approvals=2)
    act(decisions.decide, cards["of two"].pk, actor=reviewer2, kind="edit", seen=cards["of two"].fingerprint, value=EDITED)
    page = sign_in("reviewer")
    for review in cards.values():
        look_at(page, review)
        page.locator("main details").evaluate_all(
            "all => all.forEach(fold => { fold.removeAttribute('name'); fold.open = true; })"
        )
        fits(page)
        accessible(page)
    unsure = cards["low confidence"]
    look_at(page, unsure)
    unfold(page, "edit").get_by_label("Amount").fill("a lot")
    page.get_by_role("button", name="Approve as corrected").click()
    expect(page.get_by_text("Enter a number.")).to_be_visible()
    accessible(page)
    page.get_by_label("Amount").fill("2")
    expect(page.locator(".difference ins").first).to_have_text("2")
    accessible(page)
    act(decisions.decide, unsure.pk, actor=reviewer2, kind="edit", seen=unsure.fingerprint, value=EDITED)
    expect(page.locator("#review-news")).to_contain_text("reviewer2 edited and approved it")
    fits(page)
    accessible(page)
    page.locator("#choice-edit form").evaluate("form => form.submit()")
    expect(page.get_by_role("alert")).to_contain_text("reviewer2 edited and approved it")
    fits(page)
    accessible(page)
    act(commands.cancel, cards["question"].run_id, by="admin")
    page.goto(cards["question"].get_absolute_url())
    accessible(page)
    page.goto(f"/accounts/reauthenticate/?next={unsure.get_absolute_url()}")
    accessible(page)


def a_full_inbox(people):
    late, claimed, *others = [stopped("guessing", f"message {number} {'w' * 80}") for number in range(5)]
    mine = stopped("paying", "message of great risk")
    Review.objects.filter(pk=late.pk).update(due_at=timezone.now() - timedelta(minutes=2))
    Review.objects.filter(pk=mine.pk).update(assignee=people["reviewer"], due_at=timezone.now() + timedelta(hours=2))
    claims.claim(claimed.pk, people["reviewer2"])
    decided = stopped("guessing", "decided")
    decisions.decide(decided.pk, actor=people["reviewer"], kind="reject", seen=decided.fingerprint, reason="It is not red.")
    notices.tell_due()
    NoticeSettings.objects.create(user=people["reviewer"], last_error="451 come back later")
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
    page.get_by_role("button", name="Decide the ticked").click()
    expect(page.get_by_role("heading", name=re.compile("Decide . reviews together"))).to_be_visible()
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
    expect(page.get_by_text("alike from run")).to_be_visible()
    fits(page)
    accessible(page)


def fold(review):
    """Its run asks many alike questions at once."""
    for _ in range(4):
        stopped("guessing")
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
    paths += [f"/runs/{runs[0].pk}/events/", f"/runs/{runs[0].pk}/steps/1/fork/"]
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
