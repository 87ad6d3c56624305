"""The page of a dependency in a real browser: it is live, and what somebody writes on it stays."""

from playwright.sync_api import expect

from runs import dependencies
from tests.shop import carried, set_terms


def test_what_may_be_done_is_live_and_a_reason_is_not_lost_while_it_is_written(sign_in, act, accessible):
    act(set_terms)
    page = sign_in("operator", theme="dark", width=390)
    page.goto("/dependencies/shop/")
    send = page.locator("#inbox-send")
    expect(send).to_have_count(0)
    act(lambda: dependencies.force("shop", "open", by="admin", reason="maintenance"))
    act(lambda: carried("buy"))
    expect(send).to_contain_text("Send this run to the inbox")
    accessible(page)
    parts = ["breaker-closed", "inbox-send", "calls-title", "waiting-title"]
    tops = page.evaluate("parts => parts.map(id => document.getElementById(id).getBoundingClientRect().top)", parts)
    assert tops == sorted(tops), "on a narrow page what may be done stands before what may be long"
    reason = page.locator("#breaker-reason")
    reason.press_sequentially("they are b")
    act(lambda: carried("buy"))
    with page.expect_response(lambda answer: "part=actions" in answer.url and answer.status == 200):
        expect(page.locator("#waiting-title")).to_contain_text("2")
    reason.press_sequentially("ack")
    expect(reason).to_have_value("they are back")
    page.get_by_role("button", name="Close the breaker").click()
    expect(page.locator("#messages")).to_contain_text("The breaker of shop is closed now.")


def test_a_page_that_asks_by_itself_says_when_it_gets_no_answer(sign_in, act):
    act(set_terms)
    page = sign_in("operator")
    for address, parts in (
        ("/dependencies/shop/", "**/dependencies/shop/?part=now"),
        ("/dependencies/", "**/dependencies/?part=now"),
    ):
        page.goto(address)
        expect(page.locator("#live")).to_have_text("Live")
        page.route(parts, lambda route: route.fulfill(status=503, body="away"))
        expect(page.locator("#live")).to_have_text("No answer, the page may be old")
        page.unroute(parts)
        expect(page.locator("#live")).to_have_text("Live")


def test_a_page_with_a_socket_says_when_a_part_of_it_gets_no_answer(sign_in):
    page = sign_in("operator")
    page.goto("/")
    expect(page.locator("#live")).to_have_text("Live")
    page.route("**/?part=machinery", lambda route: route.abort())
    page.evaluate("htmx.trigger(document.body, 'changed')")
    expect(page.locator("#live")).to_have_text("No answer, the page may be old")
    page.unroute("**/?part=machinery")
    page.evaluate("htmx.trigger(document.body, 'changed')")
    expect(page.locator("#live")).to_have_text("Live")
