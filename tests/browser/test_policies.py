"""Policies in a real browser: tried on recorded steps before they are saved, without scripts too, and what they then do."""

from playwright.sync_api import expect

from reviews.models import Review
from runs import commands, executor, policies
from tests.agents import guess


def started(number: int) -> None:
    run = commands.start("guessing", {"text": "hello", "number": number}, by="operator")
    executor.advance(run.pk, owner="test")


def test_a_policy_is_tried_then_saved_and_then_asks(sign_in, act, accessible):
    for number in (9, 9, 10):
        act(started, number)
    page = sign_in("admin", script=False)
    page.goto("/agents/guessing/")
    page.get_by_role("link", name="Add").click()
    page.get_by_label("Worker:").select_option(guess.name)
    page.get_by_label("Ask a person when:").select_option("condition")
    page.get_by_label("Field:").fill("amount")
    page.get_by_label("Operator:").select_option(">=")
    page.get_by_label("Value:").fill("many")
    page.get_by_role("button", name="Preview").click()
    expect(page.get_by_text("Enter a number.")).to_be_visible()
    page.get_by_label("Value:").fill("5")
    page.get_by_role("button", name="Preview").click()
    expect(page.locator("#preview-says")).to_have_text(
        "It would have sent 3 of the last 3 steps to a person; none of those that pass was later corrected."
    )
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("was added successfully")).to_be_visible()
    act(started, 9)
    review = act(Review.objects.open().get)
    page = sign_in("reviewer", width=390)
    page.goto(review.get_absolute_url())
    expect(page.get_by_text("amount >= 5").first).to_be_visible()
    accessible(page)
    page = sign_in("operator")
    page.goto("/agents/guessing/")
    expect(page.get_by_text("A person is asked: amount >= 5.")).to_be_visible()
    accessible(page)


def test_a_sample_is_said_to_be_wrong_and_an_agent_with_too_many_is_paused(sign_in, act, accessible):
    act(policies.configure, by="admin", agent="guessing", sample_share=1.0)
    act(commands.configure, "guessing", by="admin", reviews_per_agent=1)
    act(started, 9)
    page = sign_in("reviewer")
    page.goto(act(Review.objects.open().get).get_absolute_url())
    expect(page.get_by_text("this is a check of its quality")).to_be_visible()
    accessible(page)
    page.get_by_text("It was wrong").first.click()
    page.get_by_label("Reason", exact=True).fill("It is green.")
    page.get_by_role("button", name="It was wrong").last.click()
    expect(page.locator("#messages")).to_contain_text("you said that it was wrong")
    for _ in range(2):
        act(started, 1)
    page = sign_in("operator", width=390)
    page.goto("/agents/guessing/")
    expect(page.get_by_text("Guessing is paused: 1 review")).to_be_visible()
    accessible(page)
    page.goto("/runs/")
    expect(page.get_by_text("Its agent is paused").first).to_be_visible()
    page.goto("/")
    accessible(page)
