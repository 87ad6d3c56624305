"""High risk and four eyes in a real browser, without scripts and with them."""

import re

from playwright.sync_api import expect

from reviews.models import Review
from tests.browser.pages import look_at, unfold


def test_high_risk_is_checked_reasoned_and_named_without_scripts(sign_in, opened, output):
    review = opened("paying", "a cup")
    page = sign_in("reviewer", script=False)
    page.goto(review.get_absolute_url())
    edit = unfold(page, "edit")
    edit.get_by_label("Amount").fill("7")
    edit.get_by_label("Why you decide so").fill("It is less.")
    edit.get_by_role("button", name="Check changes").click()
    expect(page.locator("#choice-edit")).to_contain_text("Read what you change, then send it.")
    expect(page.locator("#choice-edit del").first).to_have_text("3")
    expect(page.get_by_role("button", name=re.compile("Approve as edited: Pay, amount 7"))).to_be_visible()
    unfold(page, "approve")
    page.locator("#choice-approve").get_by_label("Why you approve it").fill("It is owed.")
    page.locator("#choice-approve").get_by_role("button", name=re.compile("Approve: Pay")).click()
    expect(page.locator("#messages")).to_contain_text(f"Approved review {review.pk}.")
    assert output(review) == {"said": "paid 3.0"}


def test_two_people_approve_what_one_of_them_edited(sign_in, act, opened, output, accessible):
    review = opened("guessing", "a cup")
    act(Review.objects.filter(pk=review.pk).update, approvals=2)
    first, second = sign_in("reviewer"), sign_in("reviewer2", theme="dark", width=390)
    look_at(first, review)
    edit = unfold(first, "edit")
    edit.get_by_label("Amount").fill("42")
    edit.get_by_role("button", name="Approve as corrected").click()
    expect(first.locator("#messages")).to_contain_text("1 of 2 approvals")
    second.goto(review.get_absolute_url())
    expect(second.get_by_label("The first approval")).to_contain_text("by reviewer")
    expect(second.get_by_label("The first approval").locator("ins").first).to_have_text("42")
    accessible(second)
    second.get_by_role("button", name="Approve", exact=True).click()
    expect(second.locator("#messages")).to_contain_text(f"Approved review {review.pk}.")
    assert output(review) == {"said": "red 42"}
