"""High risk, four eyes, and what is decided seldom, in a real browser: without scripts and with them."""

import re

from playwright.sync_api import expect

from reviews.models import Review
from runs.models import Run
from tests.browser import cards
from tests.browser.pages import look_at, seen, unfold


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


def test_two_people_approve_what_one_of_them_edited(sign_in, act, opened, output):
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
    second.get_by_role("button", name="Approve", exact=True).click()
    expect(second.locator("#messages")).to_contain_text(f"Approved review {review.pk}.")
    assert output(review) == {"said": "red 42"}
    first.goto("/reviews/history/")
    expect(first.locator("ins")).to_have_count(0)
    first.get_by_text("1 change to the proposal").first.click()
    expect(first.locator("ins").first).to_have_text("42")


def test_what_nobody_knows_is_looked_up_and_said(sign_in, act, output):
    happened, not_happened, again = (act(cards.of_unknown_outcome, text) for text in ("one", "two", "three"))
    page = look_at(sign_in("reviewer"), happened)
    form = unfold(page, "happened")
    form.get_by_label("Value").fill("paid, says the bank")
    form.get_by_label("Why you decide so").fill("It is on the statement.")
    form.get_by_role("button", name="Go on with this result").click()
    expect(page.locator("#messages")).to_contain_text(f"Review {happened.pk}: it happened")
    seen(page, not_happened)
    form = unfold(page, "not_happened")
    form.get_by_label("How you know").fill("The bank has no such entry.")
    form.get_by_role("button", name="Tell the supervisor that it did not happen").click()
    expect(page.locator("#messages")).to_contain_text(f"Review {not_happened.pk}: it did not happen.")
    seen(page, again)
    form = unfold(page, "retry")
    expect(form).to_contain_text("If it did happen, it will have happened twice.")
    form.get_by_label("Why you decide so").fill("Twice would do no harm.")
    form.get_by_role("button", name="Carry it out once more").click()
    assert form.get_by_label("I know that it may happen twice.").evaluate("field => !field.validity.valid")
    form.get_by_label("I know that it may happen twice.").check()
    form.get_by_role("button", name="Carry it out once more").click()
    expect(page.locator("#messages")).to_contain_text(f"Review {again.pk}: it is tried again.")
    told = [output(review) for review in (happened, not_happened, again)]
    assert told == [{"said": said} for said in ("paid, says the bank", "not paid: The bank has no such entry.", "paid 3.0")]


def test_a_run_whose_code_changed_goes_on_anew_as_before_or_not_at_all_without_scripts(sign_in, act, carry, output):
    forked, again, ended = (act(cards.of_changed_code, text) for text in ("one", "two", "three"))
    page = sign_in("reviewer", script=False)
    page.goto(forked.get_absolute_url())
    expect(unfold(page, "fork")).to_contain_text("This run is cancelled. This cannot be taken back.")
    page.get_by_role("button", name="Fork the run from this step").click()
    expect(page).to_have_url(re.compile(rf"/reviews/{again.pk}/"))
    unfold(page, "retry").get_by_role("button", name="Try again").click()
    expect(page).to_have_url(re.compile(rf"/reviews/{ended.pk}/"))
    unfold(page, "cancel").get_by_label("Reason").fill("Nobody needs it any more.")
    page.get_by_role("button", name="Cancel the run").click()
    expect(page.get_by_text("Nobody is needed")).to_be_visible()
    assert output(again) == {"said": "green"}
    page.goto(forked.get_absolute_url())
    page.get_by_role("link", name=re.compile("which goes on")).click()
    expect(page.locator("#run-state")).to_contain_text("Waiting")
    statuses = act(lambda: [Run.objects.get(pk=review.run_id).status for review in (forked, again, ended)])
    assert statuses == ["cancelled", "succeeded", "cancelled"]


def test_a_step_is_skipped_and_a_run_finishes_with_what_there_is_without_scripts(sign_in, act, output):
    skipped, finished = act(cards.of_what_may_be_skipped), act(cards.of_a_budget_that_may_end)
    page = sign_in("reviewer", script=False)
    page.goto(skipped.get_absolute_url())
    form = unfold(page, "skip")
    expect(form).to_contain_text("is left out: The greeting is missing.")
    form.get_by_role("button", name="Skip this step").click()
    expect(page.locator("#messages")).to_contain_text(f"Review {skipped.pk}: skipped")
    expect(page).to_have_url(re.compile(rf"/reviews/{finished.pk}/"))
    form = unfold(page, "finish")
    form.get_by_label("Reason").fill("That is enough.")
    form.get_by_role("button", name="Finish with what there is").click()
    expect(page.locator("#messages")).to_contain_text(f"Review {finished.pk}: the run finishes with what there is.")
    assert (output(skipped), output(finished)) == ({"said": "nothing"}, {"said": "0 1 and no more"})
    assert act(lambda: {Run.objects.get(pk=review.run_id).status for review in (skipped, finished)}) == {"partial"}
