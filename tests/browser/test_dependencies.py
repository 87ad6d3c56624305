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
    reason = page.locator("#breaker-reason")
    reason.press_sequentially("they are b")
    act(lambda: carried("buy"))
    with page.expect_response(lambda answer: "part=actions" in answer.url and answer.status == 200):
        expect(page.locator("#waiting-title")).to_contain_text("2")
    reason.press_sequentially("ack")
    expect(reason).to_have_value("they are back")
    page.get_by_role("button", name="Close the breaker").click()
    expect(page.locator("#messages")).to_contain_text("The breaker of shop is closed now.")
