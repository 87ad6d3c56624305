"""Two reviewers and one review: who looks, who is at it, whose it becomes; what the bell tells; and all of it without scripts."""

from django.db.models.functions import Now
from playwright.sync_api import expect

from reviews import claims
from reviews.models import Claim, Review
from tests.desk import until


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
    with page.expect_response(lambda answer: "/here/" in answer.url and answer.request.resource_type != "ping"):
        page.reload()
    expect(page.get_by_role("button", name="Release")).to_be_visible()

    def short():
        return Claim.objects.filter(until__lte=Now() + claims.GRACE).exists()

    page.goto("/")
    act(until, short, seconds=20)


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
