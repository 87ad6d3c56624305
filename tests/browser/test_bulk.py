"""Many reviews decided together, as a person sees it: ticked, looked at, left out, decided, and what came of each."""

from playwright.sync_api import expect

from reviews.models import Review


def test_ticked_reviews_are_looked_at_decided_and_told_of(sign_in, opened, act):
    reviews = [opened("guessing", text) for text in ("card lost", "card stolen today", "no such card")]
    page = sign_in("reviewer", width=390)
    page.goto("/reviews/")
    for review in reviews:
        page.locator(f'[data-row="{review.pk}"]').get_by_role("checkbox").check()
    page.get_by_role("button", name="Decide the 3 ticked").click()
    expect(page.get_by_role("heading", name="Decide 3 reviews together")).to_be_visible()
    expect(page.get_by_role("table")).to_contain_text("card stolen today")
    page.get_by_label(f"Leave out review {reviews[2].pk}").check()
    page.get_by_role("button", name="Reject").click()
    expect(page.get_by_text("a rejection needs a reason")).to_be_visible()
    expect(page.get_by_label(f"Leave out review {reviews[2].pk}")).to_be_checked()
    page.get_by_role("button", name="Approve").click()
    expect(page.get_by_role("heading", name="Done")).to_be_visible()
    expect(page.get_by_role("status").filter(has_text="Decided")).to_contain_text("Decided 2")
    states = act(lambda: [Review.objects.get(pk=review.pk).state for review in reviews])
    assert states == ["decided", "decided", "open"]


def test_identical_questions_are_decided_from_the_page_of_one_of_them(sign_in, opened, act):
    first, second, other = opened("guessing", "the same"), opened("guessing", "the same"), opened("guessing", "another one")
    page = sign_in("reviewer", script=False)
    page.goto(f"/reviews/{first.pk}/")
    page.get_by_role("button", name="Decide all 2 together").click()
    expect(page.get_by_role("heading", name="They are identical")).to_be_visible()
    page.get_by_role("button", name="Approve").click()
    expect(page.get_by_role("heading", name="Done")).to_be_visible()
    assert act(lambda: list(Review.objects.open().values_list("pk", flat=True))) == [other.pk]
    assert second.pk
