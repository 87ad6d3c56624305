"""A budget in a real browser: what was spent, the question at its end, and a limit that is raised."""

from playwright.sync_api import expect

from reviews.models import Review
from runs import commands, executor
from runs.models import Run


def test_a_limit_is_raised_and_the_run_goes_on(sign_in, act, carry, accessible):
    def exhausted():
        commands.configure("consuming", by="admin", run_money="0.20")
        run = commands.start("consuming", {"text": "line", "number": 3}, by="operator")
        executor.advance(run.pk, owner="test")
        return Review.objects.open().select_related("run").get(run=run)

    review = act(exhausted)
    page = sign_in("operator", width=390)
    page.goto(review.run.get_absolute_url())
    expect(page.locator("#run-facts")).to_contain_text("0.20 of 0.20 USD, 200 tokens, 2 calls")
    page.goto(review.get_absolute_url())
    limit = page.get_by_label("New limit (USD)")
    expect(limit).to_have_value("0.4")
    limit.fill("-1")
    page.get_by_role("button", name="Raise the limit").click()
    expect(page.get_by_text("The new limit must be more than 0.20 USD.")).to_be_visible()
    expect(limit).to_have_value("-1")
    limit.fill("0.5")
    page.get_by_role("button", name="Raise the limit").click()
    expect(page.locator("#messages")).to_contain_text(f"Review {review.pk}: the limit was raised, and the run goes on.")
    carry()
    assert act(Run.objects.get, pk=review.run_id).status == "succeeded"
    page.goto("/agents/consuming/")
    expect(page.get_by_text("0.30 USD, 300 tokens, 3 calls")).to_be_visible()
    accessible(page)
