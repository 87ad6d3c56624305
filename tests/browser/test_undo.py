"""A decision taken back in a real browser, by the button, by the key and without scripts; and one that no longer can be."""

import re

import pytest
from playwright.sync_api import expect

from reviews.models import Decision, Review
from runs.models import Run
from tests.browser import conftest


@pytest.fixture(scope="module")
def address(django_db_setup):
    """A web process where decisions can be taken back for longer than any of this takes."""
    with conftest.web(UNDO_SECONDS="300") as url:
        yield url


def test_a_decision_is_taken_back_by_key_by_button_and_without_scripts(sign_in, opened, act, carry, accessible):
    first, second = opened("guessing", "one"), opened("guessing", "two")
    page = sign_in("reviewer")
    page.goto(first.get_absolute_url())
    expect(page.locator("body[data-seen]")).to_be_attached()
    page.keyboard.press("a")
    expect(page).to_have_url(re.compile(rf"/reviews/{second.pk}/"))
    expect(page.locator("#undo")).to_contain_text(f"Review {first.pk} is not carried out yet: Approved, ")
    expect(page.get_by_role("button", name=re.compile(r"Undo \(\d+ s\)"))).to_be_visible()
    accessible(page)
    carry()
    assert act(Run.objects.get, pk=first.run_id).output is None
    expect(page.locator("body[data-seen]")).to_be_attached()
    page.keyboard.press("a")
    expect(page.locator("#undo")).to_contain_text(f"Review {second.pk} is not carried out yet: Approved, ")
    page.keyboard.press("z")
    expect(page.locator("#undo")).to_contain_text(f"Before that: Review {first.pk} is not carried out yet: Approved, ")
    expect(page.locator("body[data-seen]")).to_be_attached()
    page.keyboard.press("z")  # of what was not decided last it takes nothing back
    expect(page.get_by_role("button", name=re.compile("Undo"))).to_be_focused()
    expect(page).to_have_url(re.compile(rf"/reviews/{second.pk}/"))
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(rf"/reviews/{first.pk}/"))
    expect(page.locator("#messages")).to_contain_text(f"Taken back: review {first.pk} is open again.")
    page.get_by_role("button", name="Approve", exact=True).click()
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#messages")).to_contain_text("open again")
    without = sign_in("reviewer", script=False)
    without.goto(first.get_absolute_url())
    without.get_by_role("button", name="Approve", exact=True).click()
    without.get_by_role("button", name="Undo").click()
    expect(without.locator("#messages")).to_contain_text("open again")
    assert act(Decision.objects.filter(revoked_at=None).count) == 0
    assert act(Review.objects.open().count) == 2


def test_the_button_goes_when_the_time_is_over_and_nothing_moves(sign_in, opened):
    review = opened("guessing", "one")
    page = sign_in("reviewer", own=True)
    page.clock.install()
    page.goto(review.get_absolute_url())
    page.get_by_role("button", name="Approve", exact=True).click()
    undo = page.locator("#undo")
    expect(undo).to_be_visible()
    title = page.get_by_role("heading", level=1).bounding_box()
    page.clock.run_for(301_000)
    expect(undo).to_be_hidden()
    assert page.get_by_role("heading", level=1).bounding_box() == title
