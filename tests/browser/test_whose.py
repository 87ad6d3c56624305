"""Two reviewers and one review: who looks, who is at it, whose it becomes; what the bell tells; and all of it without scripts."""

import os

import pytest
from django.db.models.functions import Now
from playwright.sync_api import expect

from reviews import claims, notices
from reviews.models import Claim, NoticeSettings, Review
from runs import commands, executor
from tests import agents
from tests.browser.conftest import THEMES
from tests.desk import until


@pytest.fixture
def opened(act):
    def make(slug, text="a message"):
        run = commands.start(slug, {"text": text, "number": 3}, by="operator")
        executor.advance(run.pk, owner="test")
        return Review.objects.select_related("run").open().get(run=run)

    return lambda *args, **kwargs: act(make, *args, **kwargs)


def test_claimed_looked_at_taken_over_reassigned_and_snoozed(sign_in, opened, act, people):
    first, second = opened("paying", "the first"), opened("guessing", "the second")
    mine, theirs = sign_in("reviewer"), sign_in("reviewer2")
    mine.goto("/reviews/")
    mine.get_by_role("button", name="Next review").click()
    expect(mine).to_have_url(f"{mine.url.split('/reviews')[0]}/reviews/{first.pk}/")
    expect(mine.get_by_role("button", name="Release")).to_be_visible()
    theirs.goto(first.get_absolute_url())
    expect(theirs.get_by_text("reviewer is at it")).to_be_visible()
    expect(theirs.locator("#present").get_by_text("reviewer is looking")).to_be_visible()
    expect(mine.locator("#present").get_by_text("reviewer2 is looking")).to_be_visible()
    theirs.get_by_role("link", name="Take over").click()
    theirs.get_by_label("Why you take it over").fill("You are at lunch.")
    theirs.get_by_role("button", name="Take over").click()
    expect(theirs.get_by_role("button", name="Release")).to_be_visible()
    expect(mine.locator("#review-news")).to_contain_text("reviewer2 is at this review")
    mine.goto("/notices/")
    expect(mine.get_by_text("Taken over from you")).to_be_visible()
    theirs.get_by_role("link", name="Reassign").click()
    theirs.get_by_label("To").select_option("reviewer")
    theirs.get_by_label("Note").fill("You know this customer.")
    theirs.get_by_role("button", name="Reassign").click()
    expect(theirs.locator("#messages")).to_contain_text(f"Review {first.pk} is now assigned to reviewer.")
    expect(theirs).to_have_url(f"{theirs.url.split('/reviews')[0]}/reviews/{second.pk}/")
    theirs.get_by_text("Snooze", exact=True).click()
    theirs.get_by_role("button", name="1 hour").click()
    expect(theirs.locator("#messages")).to_contain_text(f"Review {second.pk} is snoozed until")
    mine.goto(first.get_absolute_url())
    expect(mine.get_by_text("Assigned to you").first).to_be_visible()
    expect(mine.get_by_text("You know this customer.")).to_be_visible()


def test_a_page_that_is_left_gives_up_its_claim_soon_and_one_that_is_loaded_again_keeps_it(sign_in, opened, act):
    review = opened("paying")
    page = sign_in("reviewer")
    page.goto(review.get_absolute_url())
    page.get_by_role("button", name="Claim", exact=True).click()
    expect(page.get_by_role("button", name="Release")).to_be_visible()
    page.reload()
    expect(page.get_by_role("button", name="Release")).to_be_visible()

    def short():
        return Claim.objects.filter(until__lte=Now() + claims.GRACE).exists()

    page.goto("/")
    act(until, short, seconds=20)


@pytest.mark.parametrize("theme", THEMES)
def test_its_pages_are_accessible_and_fit_a_phone(sign_in, opened, act, accessible, people, theme):
    reviews = [opened("paying", f"number {number}") for number in range(3)]
    act(notices.tell_due)
    act(NoticeSettings.objects.create, user=people["reviewer"], last_error="451 come back later")
    for width in (1280, 390):
        page = sign_in("reviewer", theme=theme, width=width)
        for name, address in {
            "review": reviews[0].get_absolute_url(),
            "reassign": f"/reviews/{reviews[0].pk}/reassign/",
            "snooze": f"/reviews/{reviews[0].pk}/snooze/",
            "notices": "/notices/",
            "numbers": "/reviews/numbers/",
            "inbox": "/reviews/",
        }.items():
            page.goto(address)
            if name == "review":
                page.get_by_text("Snooze", exact=True).click()
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
            if to := os.environ.get("SHOTS"):
                page.screenshot(path=f"{to}/{name}-{theme}-{width}.png")
            accessible(page)


def test_without_scripts_all_of_it_works(sign_in, opened, act):
    review = opened("paying")
    page = sign_in("reviewer", script=False)
    page.goto("/reviews/")
    page.get_by_role("button", name="Next review").click()
    page.get_by_role("button", name="Release").click()
    page.get_by_role("button", name="Claim", exact=True).click()
    page.get_by_text("Snooze", exact=True).click()
    page.get_by_role("link", name="Another time ...").click()
    page.get_by_label("Until").fill("2020-01-01T09:00")
    page.get_by_role("button", name="Snooze").click()
    expect(page.get_by_role("alert")).to_contain_text("That time has passed. Choose a later one.")
    assert act(Review.objects.get, pk=review.pk).snoozed_until is None


__all__ = ["agents"]
