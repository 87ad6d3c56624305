"""What a reviewer does in a real browser: every decision, two people on one review, the keyboard, and no scripts at all."""

import re

from playwright.sync_api import expect

from reviews import decisions
from reviews.models import Review
from runs import sdk
from tests import agents
from tests.browser.pages import ATTACK, look_at, unfold


def test_approve_and_the_next_review_is_shown(sign_in, opened, output):
    first, second = opened("guessing", "the first"), opened("guessing", "the second")
    page = sign_in("reviewer")
    page.goto("/reviews/")
    page.get_by_role("button", name="Next review").click()
    expect(page.locator("#review-title")).to_be_focused()
    page.get_by_role("button", name="Approve", exact=True).click()
    expect(page.locator("#messages")).to_contain_text(f"Approved review {first.pk}.")
    expect(page).to_have_url(re.compile(rf"/reviews/{second.pk}/$"))
    expect(page.locator("#review-title")).to_be_focused()
    expect(page.get_by_role("heading", level=1)).to_have_text("Guess")
    assert output(first) == {"said": "red 9"}


def test_edit_a_value_that_first_does_not_fit(sign_in, opened, output):
    review = opened("guessing")
    page = look_at(sign_in("reviewer"), review)
    unfold(page, "edit")
    page.get_by_label("Colour").select_option("green")
    page.get_by_label("Amount").fill("a lot")
    page.get_by_role("button", name="Approve as corrected").click()
    expect(page.get_by_text("Enter a number.")).to_be_visible()
    expect(page.get_by_label("Colour")).to_have_value("green")
    expect(page.get_by_label("Amount")).to_be_focused()
    expect(page.get_by_label("Amount")).to_have_value("a lot")
    expect(page.get_by_label("Amount")).to_have_attribute("aria-invalid", "true")
    page.get_by_label("Amount").fill("12.5")
    expect(page.get_by_text("Enter a number.")).to_be_hidden()
    expect(page.locator(".difference del").first).to_have_text("9")  # while it is typed
    expect(page.locator(".difference ins").first).to_have_text("12.5")
    expect(page.locator("#choice-edit .saved")).to_contain_text("Saved")
    page.goto(review.get_absolute_url())
    expect(page.get_by_text("is in the form below")).to_be_visible()
    expect(page.get_by_label("Amount")).to_have_value("12.5")
    page.get_by_role("button", name="Approve as corrected").click()
    expect(page.locator("#messages")).to_contain_text(f"Edited and approved review {review.pk}.")
    page.goto(review.get_absolute_url())
    expect(page.locator("ins").first).to_have_text("12.5")
    assert output(review) == {"said": "green 12.5"}


def test_enter_in_a_list_sends_nothing_and_adds_no_row(sign_in, opened, output):
    review = opened("filling", "pear plum")
    page = look_at(sign_in("reviewer"), review)
    form = unfold(page, "edit")
    price = form.locator("[name='value.items.0.price']")
    price.fill("2.5")
    price.press("Enter")
    expect(form.locator(".saved")).to_contain_text("Saved")
    expect(form.locator("[name$='.price']")).to_have_count(3)
    expect(price).to_be_focused()
    form.get_by_role("button", name="One more row").click()
    expect(form.locator("[name='value.items.3.name']")).to_be_focused()
    expect(price).to_have_value("2.5")
    page.keyboard.type("fig")
    page.keyboard.press("Tab")
    page.keyboard.type("1")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#messages")).to_contain_text(f"Edited and approved review {review.pk}.")
    assert output(review) == {"said": "pear 2.5 plum 4 fig 1"}


def test_reject_needs_a_reason(sign_in, opened, output):
    review = opened("paying")
    page = look_at(sign_in("reviewer"), review)
    unfold(page, "reject")
    page.get_by_role("button", name="Reject").click()
    assert page.get_by_label("Reason", exact=True).evaluate("field => !field.validity.valid")  # the browser itself stops the form
    page.get_by_label("Reason", exact=True).fill("Too dear.")
    page.get_by_role("button", name="Reject").click()
    expect(page.locator("#messages")).to_contain_text(f"Rejected review {review.pk}.")
    assert output(review) == {"said": "not paid: Too dear."}


def test_send_back_for_changes_with_a_remark(sign_in, opened, output):
    review = opened("guessing")
    page = look_at(sign_in("reviewer"), review)
    form = unfold(page, "send_back")
    form.get_by_label("Remark for the worker").fill("Look at its length.")
    form.get_by_role("button", name="Send back").click()
    expect(page.locator("#messages")).to_contain_text("sent back for changes")
    assert output(review) == {"said": "red 9"}


def test_a_failed_step_is_tried_again_or_taken_over(sign_in, opened, output):
    agents.FAILURES["tired"] = [sdk.GiveUp("the bank said no")]
    agents.FAILURES["ill"] = [sdk.GiveUp("the bank said no")]
    again, over = opened("stumbling", "tired"), opened("stumbling", "ill")
    page = look_at(sign_in("reviewer"), again)
    form = unfold(page, "retry")
    form.get_by_label("Reason (optional)").fill("Once more.")
    form.get_by_role("button", name="Try again").click()
    expect(page).to_have_url(re.compile(rf"/reviews/{over.pk}/"))
    form = unfold(page, "take_over")
    form.get_by_role("textbox").fill("I stood up for it")
    form.get_by_role("button").last.click()
    expect(page.locator("#messages")).to_contain_text("the run goes on with your result")
    assert (output(again), output(over)) == ({"said": "stood up"}, {"said": "I stood up for it"})


def test_what_matters_most_is_named_on_its_button_and_needs_a_reason(sign_in, opened, output):
    review = opened("paying")
    page = look_at(sign_in("reviewer"), review)
    expect(page.locator("body[data-seen]")).to_be_attached()
    page.keyboard.press("a")  # no single key decides it
    reason = page.get_by_label("Why you approve it")
    expect(reason).to_be_focused()
    page.get_by_role("button", name="Approve: Pay").click()
    assert reason.evaluate("field => !field.validity.valid")
    reason.fill("The invoice is right.")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#messages")).to_contain_text(f"Approved review {review.pk}.")
    assert output(review) == {"said": "paid 3.0"}


def test_answer_a_question(sign_in, opened, output):
    review = opened("asking", ATTACK)
    page = look_at(sign_in("operator"), review)
    expect(page.get_by_role("article").get_by_text(f"Which colour for {ATTACK}?")).to_be_visible()
    page.get_by_label("Colour").select_option("red")
    page.get_by_label("Amount").fill("1")
    page.get_by_role("button", name="Send the answer").click()
    expect(page.get_by_text("Nobody is needed")).to_be_visible()
    assert output(review) == {"said": "red"}


def test_of_two_reviewers_the_second_is_told_live_and_keeps_what_was_typed(sign_in, opened, output):
    review = opened("guessing")
    first, second = look_at(sign_in("reviewer"), review), look_at(sign_in("reviewer2"), review)
    unfold(second, "edit")
    second.get_by_label("Amount").fill("77")
    unfold(first, "edit")
    first.get_by_label("Amount").fill("60")
    first.get_by_role("button", name="Approve as corrected").click()
    expect(second.locator("#review-news")).to_contain_text("reviewer edited and approved it")
    expect(second.locator("#review-news")).to_contain_text(re.compile("Amount.*60.*instead of.*9"))
    expect(second.get_by_label("Amount")).to_have_value("77")
    decide = second.get_by_role("region", name="Your decision")
    expect(decide.get_by_role("button")).to_have_count(0)
    expect(decide.locator("summary:visible")).to_have_text(re.compile("Edit"))  # of all forms only what was typed is left
    expect(second.locator("#review-news").get_by_role("button", name="Next review")).to_be_visible()
    assert output(review) == {"said": "red 60"}


def test_of_two_reviewers_the_second_who_heard_nothing_is_told_by_the_answer(sign_in, opened, act, people):
    review = opened("guessing")
    page = sign_in("reviewer", script=False)
    page.goto(review.get_absolute_url())
    act(decisions.decide, review.pk, actor=people["reviewer2"], kind="reject", seen=review.fingerprint, reason="Neither.")
    unfold(page, "edit")
    page.get_by_label("Amount").fill("77")
    with page.expect_response("**/decision/**") as answer:
        page.get_by_role("button", name="Approve as corrected").click()
    assert answer.value.status == 409
    expect(page.get_by_role("alert")).to_contain_text("reviewer2 rejected it")
    expect(page.get_by_text("What you had typed")).to_be_visible()
    expect(page.get_by_role("alert").get_by_role("button", name="Next review")).to_be_visible()
    expect(page.get_by_role("insertion")).to_have_text("77")
    expect(page.locator("article .content", has_text="Neither.")).to_be_visible()


def test_what_happened_while_the_connection_was_lost_is_shown_when_it_is_back(sign_in, opened, act, people):
    review = opened("guessing")
    page, sockets, silent = sign_in("reviewer"), [], []

    def let_through(socket):
        sockets.append(socket)
        socket.connect_to_server().on_message(lambda said: socket in silent or socket.send(said))

    page.clock.install()
    page.route_web_socket("**/ws/**", let_through)
    look_at(page, review)
    unfold(page, "reject").get_by_label("Reason", exact=True).fill("What I write stays.")
    sockets[0].close(code=1012)
    expect(page.locator("#live")).to_have_text("Reconnecting, the page may be old")
    act(decisions.decide, review.pk, actor=people["reviewer2"], kind="approve", seen=review.fingerprint)
    expect(page.locator("#live")).to_have_text("Live", timeout=30_000)
    expect(page.locator("#review-news")).to_contain_text("reviewer2 approved it")
    expect(page.locator("#choice-reject textarea")).to_have_value("What I write stays.")
    expect(page.get_by_role("button", name="Reject")).to_be_hidden()
    silent += sockets  # the connection breaks, and neither end is told
    page.clock.fast_forward(35_000)
    expect(page.locator("#live")).to_have_text("Reconnecting, the page may be old")
    expect(page.locator("#live")).to_have_text("Live", timeout=30_000)


def test_whoever_may_no_longer_decide_is_told_so_and_decides_nothing(sign_in, opened, act, people):
    page = look_at(sign_in("reviewer"), opened("guessing"))
    act(people["reviewer"].groups.clear)
    expect(page.locator("#live")).to_have_text("No longer live: sign in again", timeout=30_000)
    page.get_by_role("button", name="Approve", exact=True).click()
    expect(page.get_by_role("heading", name="You may not see or do this")).to_be_visible()
    assert act(Review.objects.open().count) == 1


def test_without_scripts_everything_can_be_decided(sign_in, opened, output):
    first, second = opened("guessing", "the first"), opened("guessing", "the second")
    page = sign_in("reviewer", script=False)
    page.goto("/reviews/")
    page.get_by_role("button", name="Next review").click()
    page.get_by_role("button", name="Approve", exact=True).click()
    unfold(page, "reject")
    page.get_by_label("Reason", exact=True).fill("No.")
    page.get_by_role("button", name="Reject").click()
    expect(page.get_by_text("Nobody is needed")).to_be_visible()
    assert output(first) == {"said": "red 9"}
    assert output(second) is None
