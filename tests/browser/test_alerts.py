"""Alerts in a browser: what is wrong, who is at it, a rule that is tried before it is saved; pictures over time."""

import math
from datetime import timedelta

from django.core.cache import cache
from django.utils import timezone
from playwright.sync_api import expect

from runs.alerts import evaluation, readings, rules
from runs.models import AlertChannel, Reading
from tests.browser.pages import fits


def something_wrong():
    AlertChannel.objects.create(name="night", url="json://x", last_error="The webhook answered 503.")
    now = timezone.now()
    until = readings.floor(now, timedelta(minutes=1))
    values = [20, 400, 20, 400]
    Reading.objects.bulk_create(
        Reading(measure="queue", at=until - timedelta(minutes=len(values) - place - 1), value=value)
        for place, value in enumerate(values)
    )
    rule = rules.configure(by="admin", name="The queue is long", measure="queue", limit=100, of=1)
    evaluation.evaluate(rule, now)
    return rule, rule.alerts.get()


def test_an_alert_is_found_taken_and_its_rule_tried_and_changed(sign_in, act, accessible):
    rule, alert = act(something_wrong)
    page = sign_in("admin")
    page.goto("/")
    expect(page.locator("#last-alerts")).to_contain_text("400, over the limit of 100")
    page.get_by_role("link", name="Alerts 1 open").click()
    expect(page.get_by_text("The channel night does not work")).to_be_visible()
    fits(page)
    accessible(page)
    page.locator(f"#alert-{alert.pk}").click()
    page.get_by_role("button", name="Acknowledge").click()
    expect(page.locator("#alert-now")).to_contain_text("Acknowledged by admin")
    fits(page)
    accessible(page)
    page.goto("/alerts/rules/")
    fits(page)
    accessible(page)
    page.locator(f"#rule-{rule.pk}").click()
    page.get_by_role("button", name="Preview").click()
    expect(page.locator("#preview-says")).to_contain_text("It would have fired 2 times in the last week.")
    expect(page.locator("time[data-exact]", has_text="UTC")).to_have_count(0)  # each is of the reader's zone
    expect(page.locator("time[data-exact]").first).to_contain_text(":")
    page.get_by_label("Limit", exact=True).fill("500")
    page.get_by_role("button", name="Preview").click()
    expect(page.locator("#preview-says")).to_contain_text("It would not have fired in the last week.")
    fits(page)
    accessible(page)
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Version 2 of the rule is in force.")).to_be_visible()


def slow_runs():
    """That took an hour and a half; also in the next five minutes, which may begin meanwhile."""
    now, grain = readings.floor(timezone.now(), timedelta(minutes=5)), timedelta(minutes=5)
    bins = [math.ceil(32 * math.log2(1000 * 5400))]  # as runs.alerts.spread keeps them
    for at in (now - grain, now, now + grain):
        for subject in ("", "paying"):
            told = {"subject": subject, "at": at, "count": 1}
            Reading.objects.create(measure="duration", value=5400, bins=bins, in_bins=[1], **told)
            Reading.objects.create(measure="runs_ended", value=1, **told)
    cache.clear()


def test_a_duration_is_drawn_and_said_in_the_units_of_people(sign_in, act):
    act(slow_runs)
    page = sign_in("operator")
    page.goto("/?span=3h")
    drawn = page.locator("#chart-duration .u-over")
    drawn.hover(position={"x": drawn.bounding_box()["width"] - 2, "y": 20})
    expect(page.locator("#chart-duration .u-legend")).to_contain_text("1 h 30 min")
    expect(page.locator("#chart-ended .u-legend")).not_to_contain_text(" min")
