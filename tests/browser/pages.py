"""What tests do on the page of a review, whatever they are about."""

import re

from playwright.sync_api import Locator, Page, expect

from reviews.models import Review

ATTACK = "<img src=x onerror=\"alert('xss')\"><script>alert('xss')</script>"


def look_at(page: Page, review: Review) -> Page:
    page.goto(review.get_absolute_url())
    expect(page.locator("#live")).to_have_text("Live")
    return page


def unfold(page: Page, kind: str) -> Locator:
    """Open the form of a decision."""
    page.locator(f"#choice-{kind} > summary").click()
    return page.locator(f"#choice-{kind}")


def seen(page: Page, review: Review) -> None:
    """The page of the review has stood before a person for long enough."""
    expect(page).to_have_url(re.compile(rf"/reviews/{review.pk}/"))
    expect(page.locator("body[data-seen]")).to_be_attached()


def fits(page: Page, *, width: int = 360) -> None:
    """It does not scroll sideways on a telephone; the window is as wide as before afterwards."""
    before = page.viewport_size
    page.set_viewport_size({"width": width, "height": 900})
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= width, f"{page.url} is {wide} wide"
    if before:
        page.set_viewport_size(before)
