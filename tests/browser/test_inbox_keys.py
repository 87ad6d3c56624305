"""The inbox from the keyboard alone: what a key presses, what it never presses, and how keys are switched off."""

import re

import pytest
from playwright.sync_api import expect

from reviews.models import Decision
from runs import sdk
from tests import agents
from tests.browser.pages import seen
from tests.cast import PASSWORD


@pytest.fixture
def decided(act):
    """(review, kind) of every decision, in their order."""
    return lambda: act(lambda: list(Decision.objects.order_by("pk").values_list("review", "kind")))


def test_from_the_sign_in_to_five_decisions_without_a_mouse(sign_in, opened, decided):
    agents.FAILURES["tired"] = [sdk.GiveUp("the bank said no")]
    given = [("guessing", "one"), ("guessing", "two"), ("guessing", "three"), ("stumbling", "tired"), ("asking", "five")]
    approved, edited, rejected, retried, answered = (opened(slug, text) for slug, text in given)
    page = sign_in()
    page.goto("/accounts/login/?next=/reviews/")
    page.get_by_label("Username").focus()
    page.keyboard.type("reviewer")
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/reviews/$"))
    expect(page.locator("body[data-seen]")).to_be_attached()
    page.keyboard.press("j")
    expect(page.locator(f"#row-{approved.pk}")).to_be_focused()
    page.keyboard.press("Enter")
    seen(page, approved)
    page.keyboard.press("a")
    seen(page, edited)
    expect(page.locator("#review-title")).to_be_focused()
    page.keyboard.press("e")
    page.get_by_label("Amount").focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("12.5")
    page.keyboard.press("Control+Enter")
    seen(page, rejected)
    page.keyboard.press("r")
    expect(page.locator("#choice-reject :focus")).to_be_attached()
    page.locator("#choice-reject textarea").focus()
    page.keyboard.type("area j k")  # letters in a field are letters
    page.keyboard.press("Control+Enter")
    seen(page, retried)
    page.keyboard.press("t")
    page.keyboard.type("Once more.")
    page.keyboard.press("Control+Enter")
    seen(page, answered)
    page.keyboard.press("q")
    page.keyboard.type("green")
    page.keyboard.press("Tab")
    page.keyboard.type("1")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_text("Nobody is needed")).to_be_visible()
    kinds = ["approve", "edit", "reject", "retry", "answer"]
    assert decided() == list(zip([one.pk for one in (approved, edited, rejected, retried, answered)], kinds, strict=True))


def test_a_key_that_is_held_or_pressed_too_soon_decides_nothing(sign_in, opened, decided):
    first, second = opened("guessing", "one"), opened("guessing", "two")
    page = sign_in("reviewer", own=True)
    page.goto(first.get_absolute_url())
    seen(page, first)
    page.keyboard.down("j")
    page.keyboard.press("a")  # while another one is held
    page.keyboard.up("j")
    page.keyboard.press("Control+a")
    assert decided() == []
    page.keyboard.down("a")
    seen(page, second)
    for _ in range(5):
        page.keyboard.down("a")  # what a held key sends, on the page of a review that nobody has read
    page.keyboard.up("a")
    page.clock.install(time="2030-01-01T00:00:00")
    page.clock.pause_at("2030-01-01T01:00:00")
    page.reload()
    page.keyboard.press("a")  # the page has just come
    page.clock.run_for(1000)
    seen(page, second)
    assert decided() == [(first.pk, "approve")]
    page.keyboard.press("a")
    expect(page.locator("#messages")).to_contain_text(f"Approved review {second.pk}.")
    assert decided() == [(first.pk, "approve"), (second.pk, "approve")]


def test_keys_are_named_and_can_be_switched_off(sign_in, opened, decided):
    review = opened("asking")
    page = sign_in("reviewer")
    page.goto(review.get_absolute_url())
    seen(page, review)
    page.keyboard.press("Shift+Slash")
    sheet = page.get_by_role("dialog", name="Keys")
    named = sheet.locator("dt:visible kbd").all_text_contents()
    assert {"j", "k", "q", "r", "c", "/", "Esc"} <= set(named)
    assert not {"e", "t", "b", "z"} & set(named)  # nothing of the kind is here
    page.keyboard.press("r")  # in the dialog no letter does anything
    expect(page.locator("#choice-reject")).not_to_have_attribute("open", "")
    sheet.get_by_label("Single letters do something").uncheck()
    sheet.get_by_role("button", name="Keep this").click()
    expect(page.get_by_text("Single keys are off.")).to_be_visible()
    seen(page, review)
    page.keyboard.press("r")
    page.keyboard.press("?")
    expect(page.locator("#choice-reject")).not_to_have_attribute("open", "")
    expect(sheet).to_be_hidden()
    page.locator("#choice-reject > summary").click()
    page.locator("#choice-reject textarea").fill("No.")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#messages")).to_contain_text("Rejected")
    assert decided() == [(review.pk, "reject")]
