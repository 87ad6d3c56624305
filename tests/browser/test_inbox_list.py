"""The list of the inbox while somebody works at it: rows come, change and leave, and nothing moves under the hand."""

import re
from datetime import timedelta

from django.utils import timezone
from playwright.sync_api import expect

from reviews import claims, decisions
from reviews.models import Review

BACK = "place => place.dispatchEvent(new CustomEvent('socket:back', { bubbles: true }))"


def inbox(page, query=""):
    page.goto(f"/reviews/{query}")
    expect(page.locator("#live")).to_have_text("Live")
    return page


def row(page, review):
    return page.locator(f'[data-row="{review.pk}"]')


def texts(page):
    return page.locator("[data-row] .act").all_text_contents()


# The socket brings a number, the page's own question another one, and the socket the first again.
AGAIN = """() => {
  const html = document.getElementById("nav-count").outerHTML;
  const detail = { changed: {}, around: { "nav-count": html } };
  const say = () => document.dispatchEvent(new CustomEvent("socket:message", { detail }));
  say();
  document.getElementById("nav-count").replaceChildren("77");
  say();
  return document.getElementById("nav-count").textContent;
}"""


def test_rows_come_change_and_leave_while_what_is_chosen_and_focused_stays(sign_in, opened, act, people):
    first, second, third = [opened("guessing", f"message {number}") for number in ("one", "two", "three")]
    page = inbox(sign_in("reviewer"))
    expect(page).to_have_title(re.compile(r"^\(3\) Inbox"))
    row(page, second).get_by_role("checkbox").check()
    for _ in range(2):
        page.keyboard.press("j")
    expect(page.locator(f"#row-{second.pk}")).to_be_focused()
    opened("guessing", "message four")  # the last in turn: it is put at the end
    expect(page.get_by_text("message four")).to_be_visible()
    risky = opened("paying", "message of great risk")  # the first in turn: it waits until it is wanted
    expect(page.get_by_role("button", name="1 new")).to_be_visible()
    expect(page).to_have_title(re.compile(r"^\(5\) Inbox"))
    expect(row(page, risky)).to_have_count(0)
    assert page.evaluate(AGAIN) != "77"
    act(claims.claim, second.pk, people["reviewer2"])
    expect(row(page, second)).to_contain_text("reviewer2")
    act(decisions.decide, first.pk, actor=people["reviewer2"], kind="approve", seen=first.fingerprint)
    expect(row(page, first)).to_contain_text("Decided")
    page.evaluate("() => new Promise(done => setTimeout(done, 2500))")  # longer than a row takes to leave
    expect(row(page, first)).to_be_visible()  # the pointer is over the list
    page.mouse.move(0, 0)
    expect(row(page, first)).to_have_count(0)
    expect(page.locator(f"#row-{second.pk}")).to_be_focused()
    expect(row(page, second).get_by_role("checkbox")).to_be_checked()
    expect(page.locator('[data-count="all"]').first).to_have_text("4")
    page.get_by_role("button", name="1 new").click()
    expect(page.locator("[data-row]").first).to_contain_text("message of great risk")
    expect(page.locator(f"#row-{risky.pk}")).to_be_focused()
    expect(row(page, second).get_by_role("checkbox")).to_be_checked()
    expect(row(page, third)).to_be_visible()


def test_what_changed_before_the_socket_was_open_is_made_good_and_a_missing_answer_is_told(sign_in, opened, act, people):
    gone, open_one = opened("guessing", "message one"), opened("guessing", "message two")

    def let_through(socket):
        act(Review.objects.filter(pk=gone.pk).update, state="cancelled")  # the page is there, and nobody is told
        socket.connect_to_server()

    page = sign_in("reviewer")
    page.route_web_socket("**/ws/inbox/**", let_through)
    inbox(page)
    expect(row(page, gone)).to_have_count(0)
    expect(row(page, open_one)).to_be_visible()
    page.route("**/rows/**", lambda route: route.abort())
    page.locator("#live").evaluate(BACK)
    expect(page.locator("#live")).to_have_text("No answer, the page may be old")
    act(claims.claim, open_one.pk, people["reviewer2"])
    expect(row(page, open_one)).to_contain_text("reviewer2")  # the socket brings it
    page.unroute("**/rows/**")
    expect(page.locator("#live")).to_have_text("Live")


def test_what_was_missed_is_made_good_when_the_socket_is_back(sign_in, opened, act):
    gone, changed = opened("guessing", "message one"), opened("guessing", "message two")
    page = sign_in("reviewer")
    page.add_init_script("const right = Date.now; Date.now = () => right() - 300_000")  # time is counted by the server's clock
    inbox(page)
    act(Review.objects.filter(pk=gone.pk).update, state="cancelled")  # nobody is told
    act(Review.objects.filter(pk=changed.pk).update, due_at=timezone.now() + timedelta(minutes=100, seconds=30))
    page.locator("#live").evaluate(BACK)
    expect(row(page, gone)).to_have_count(0)
    expect(row(page, changed)).to_contain_text("1 h 40 min left")
    act(Review.objects.filter(pk=changed.pk).update, state="cancelled")
    page.locator("#live").evaluate(BACK)
    expect(page.get_by_text("Nobody is needed")).to_be_visible()
    opened("guessing", "message three")
    expect(page.get_by_text("message three")).to_be_visible()


def test_filters_views_and_the_history_without_scripts(sign_in, opened):
    opened("guessing", "a small thing"), opened("paying", "a large sum")
    page = sign_in("reviewer", script=False)
    page.goto("/reviews/")
    page.get_by_label("Cause").select_option("low_confidence")
    page.get_by_role("search").get_by_role("button", name="Filter").last.click()
    assert len(texts(page)) == 1
    page.get_by_role("link", name="Save this view").click()
    page.get_by_label("Name").fill("Unsure ones")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved the view “Unsure ones”.")).to_be_visible()
    page.get_by_role("link", name="Clear filters").click()
    assert len(texts(page)) == 2
    page.get_by_role("link", name="Unsure ones").click()
    page.locator("[data-row] a").first.click()
    page.get_by_role("button", name="Approve").first.click()
    page.goto("/reviews/history/")
    expect(page.get_by_role("row").nth(1)).to_contain_text("Approved")
    expect(page.get_by_role("row").nth(1)).to_contain_text("reviewer")
    exported = page.request.get("/reviews/history/export.csv")  # as the web process streams it
    assert exported.status == 200
    assert [line.split(",")[1:3] for line in exported.text().splitlines()[1:]] == [["reviewer", "approve"]]
