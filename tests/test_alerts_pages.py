"""The pages of alerts and their rules, and what is said in channels, over real sockets."""

import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.conf import settings
from django.test import Client, override_settings
from django.utils import timezone
from pytest_django import Settings

from runs import clock, dispatch
from runs.alerts import delivery, evaluation, readings, rules, watch
from runs.models import Alert, AlertChannel, AlertEvent, AlertRule, Reading, Round
from tests.letterbox import MailServer, Webhook
from tests.shop import set_terms

pytestmark = pytest.mark.django_db
SignedIn = Callable[..., Client]
MADE = AlertRule.objects.filter(built_in=None).all  # by people
STATE = re.compile(r'class="state tone-(\w+)"><svg.*?</svg>(\w+)</span>', re.DOTALL)
EVIL = "<script>alert(1)</script>"
FORM = {
    "name": "Long queue", "enabled": "on", "measure": "queue", "subject": "", "kind": "threshold", "side": "above", "limit": "10",
    "least_value": "0", "least_count": "1", "window_minutes": "15", "back": "1", "breaches": "1", "of": "1",
    "zone": "UTC", "act": "",
}  # fmt: skip


@pytest.fixture
def mail(settings: Settings) -> Iterator[MailServer]:
    with MailServer() as server:
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", server.port
        yield server


@pytest.fixture
def webhook(settings: Settings) -> Iterator[Webhook]:
    settings.ALLOWED_PRIVATE_NETWORKS = ["127.0.0.0/8"]
    settings.PUBLIC_URL = "https://agentops.example/"
    with Webhook() as server:
        yield server


def opened(value: float = 99, **wanted: Any) -> Alert:
    terms: dict[str, Any] = {"name": f"Rule {AlertRule.objects.count()}", "measure": "queue", "limit": 10, "of": 1}
    rule = rules.configure(by="admin", **terms | wanted)
    evaluation.evaluate(rule, read(value))
    return rule.alerts.get()


def read(*values: float) -> datetime:
    """The last of them now; return when that is."""
    now = timezone.now()
    until = readings.floor(now, timedelta(minutes=1))
    for ago, value in enumerate(reversed(values)):
        at = until - timedelta(minutes=ago)
        Reading.objects.update_or_create(measure="queue", subject="", at=at, defaults={"value": value})
    return now


def over(alert: Alert) -> None:
    evaluation.evaluate(alert.rule, read(1))


# --- pages ------------------------------------------------------------------------------------------------------------


def test_who_sees_an_alert_takes_it_puts_it_off_and_reads_its_history(
    signed_in: SignedIn, django_assert_max_num_queries: Any
) -> None:
    client, alert = signed_in(), opened(name=f"Queue {EVIL}")
    with django_assert_max_num_queries(14):
        page = client.get("/alerts/").text
    assert f'href="/alerts/{alert.pk}/"' in page
    assert 'class="count alarm">1<' in page
    answer = client.get("/alerts/count/")
    assert "no-store" in answer.headers["Cache-Control"]
    count = answer.text
    assert 'class="count alarm">1<span class="visually-hidden"> open</span>' in count
    assert 'hx-get="/alerts/count/" hx-trigger="alerts from:body, socket:back from:body, every 60s"' in count
    assert Client().get("/alerts/count/").status_code == 403, "no form to sign in within the navigation"
    assert EVIL not in page
    assert "Jobs on the queue: 99, over the limit of 10" in client.get("/").text
    page = client.post(f"/alerts/{alert.pk}/owner/", follow=True).text
    assert "You have acknowledged it" in page
    assert "Acknowledged</span>" in page
    assert "by operator" in page
    assert "Take it over from operator" in signed_in("admin").get(f"/alerts/{alert.pk}/").text
    assert "Choose for how many hours" in client.post(f"/alerts/{alert.pk}/snooze/", {"hours": "9" * 5}, follow=True).text
    assert "Nobody is told of it for 4 hours" in client.post(f"/alerts/{alert.pk}/snooze/", {"hours": "4"}, follow=True).text
    over(alert)
    page = client.get(f"/alerts/{alert.pk}/?part=now").text
    assert "Ended: Jobs on the queue: 1" in page
    assert '<svg class="series"' in page
    assert "This alert has ended meanwhile" in client.post(f"/alerts/{alert.pk}/owner/", follow=True).text
    assert client.get(f"/alerts/{alert.pk}/owner/").status_code == 302
    assert "Nobody watches now: no round of the alert rules has ended yet" in client.get("/alerts/?part=now").text
    Round.objects.create(begun_at=clock.now(), ended_at=clock.now(), failed=["Audits"])
    page = client.get("/alerts/?part=now").text
    assert ("Nothing is wrong" in page, "Nobody watches" in page) == (True, False)
    assert "Audits: this failed in the last round" in page
    assert client.get("/alerts/?cursor=made-up").status_code == 404


def test_what_was_closed_without_an_answer_does_not_look_as_if_all_were_well(signed_in: SignedIn) -> None:
    first, second = opened(name="first"), opened(name="second")
    evaluation.end(first, note="Its rule was disabled.", kind=AlertEvent.Kind.CLOSED)
    evaluation.end(second, note="Jobs on the queue: 1")
    client = signed_in()
    closed, ended = ("neutral", "Closed"), ("green", "Ended")
    pages = {f"/alerts/{first.pk}/": [closed], f"/alerts/{second.pk}/": [ended], "/alerts/": [ended, closed]}
    for page, looks in (pages | {"/?part=alerts": [ended, closed]}).items():
        assert sorted(STATE.findall(client.get(page).text)) == sorted(looks), page


def test_a_rule_is_made_tried_and_changed_in_a_form_that_says_what_is_wrong_where(signed_in: SignedIn) -> None:
    client = signed_in("admin")
    new = client.get("/alerts/rules/new/").text
    assert "There is no channel yet, so nobody is told" in new
    assert "Press Preview: it says when the rule would have fired" in new
    channel = AlertChannel.objects.create(name="night", url="mailto:a@example.com")
    read(*[1, 20, 1, 20, 1, 20, 1])
    tried = client.post("/alerts/rules/new/", FORM | {"preview": "1"}).text
    assert re.search(r"It would have fired 3 times in the last week. Of that week only the last \d minutes are known", tried)
    assert not MADE().exists(), "a preview saves nothing"
    wrong = client.post("/alerts/rules/new/", FORM | {"limit": "much", "breaches": "3", "act": "pause_agent", "name": EVIL})
    assert wrong.status_code == 422
    assert 'id="id_limit_error">Enter a number.' in wrong.text
    assert EVIL not in wrong.text
    acts = client.post("/alerts/rules/new/", FORM | {"act": "pause_agent"}).text
    assert 'id="id_act_on_error">Say which agent: the alert is about none.' in acts
    assert client.post("/alerts/rules/new/", FORM | {"channels": [channel.pk]}).status_code == 302
    rule = MADE().get()
    page = client.get(rule.get_absolute_url()).text
    assert re.search(r'<legend class="form-label">Channels</legend>.*?checked>\s*night</label>', page, re.DOTALL)
    assert 'name="limit" value="10"' in page
    assert (rule.channels, rule.changed_by, rule.version) == ([channel.pk], "admin", 1)
    page = client.post(rule.get_absolute_url(), FORM | {"limit": "30"}, follow=True).text
    assert "Version 2 of the rule is in force." in page
    assert "limit: 10 → 30" in page, re.findall("limit: [^<]*", page)
    assert "Press Preview" in page
    assert "It would" not in page, "who only looks waits for no week to be judged"
    assert "Nothing was changed" in client.post(rule.get_absolute_url(), FORM | {"limit": "30"}, follow=True).text
    assert client.post("/alerts/rules/new/", FORM).status_code == 422, "the name is taken"
    listed = signed_in("reviewer").get("/alerts/rules/").text
    assert "Long queue" in listed
    rules.configure(rule.pk, by="admin", act="pause_agent", act_on="counting")
    assert '<td class="hide-narrow text-nowrap">disable an agent</td>' in signed_in("reviewer").get("/alerts/rules/").text
    assert "nothing was sent yet" in listed


# --- channels ---------------------------------------------------------------------------------------------------------


def test_the_beginning_and_the_end_are_said_by_mail_and_in_a_webhook(mail: MailServer, webhook: Webhook) -> None:
    AlertChannel.objects.create(name="mail", url="mailto:night@example.com")
    AlertChannel.objects.create(name="hook", url=f"json://{webhook.at}/in", zone="Asia/Tokyo")
    alert = opened(name="The queue is long")
    assert (delivery.deliver(), delivery.deliver()) == (2, 0)
    (letter,) = mail.letters
    assert (letter["to"], letter["subject"]) == ("night@example.com", "Alert: The queue is long")
    said = webhook.posts[0][1]["message"]
    assert "Jobs on the queue: 99, over the limit of 10" in said
    assert "(Asia/Tokyo)" in said
    assert f"https://agentops.example/alerts/{alert.pk}/" in said
    over(alert)
    assert delivery.deliver() == 2
    assert mail.letters[1]["subject"] == "Ended: The queue is long"
    assert "Jobs on the queue: 1\n" in webhook.posts[1][1]["message"]
    read(99)
    evaluation.evaluate(alert.rule, timezone.now())
    assert delivery.deliver() == 2
    rules.configure(alert.rule_id, by="admin", enabled=False)
    evaluation._end_disabled()
    assert delivery.deliver() == 2
    assert mail.letters[3]["subject"] == "Closed without an answer: The queue is long"
    assert "Its rule was disabled.\n" in webhook.posts[3][1]["message"]
    assert dispatch.OFFERED[delivery.JOB] is delivery.deliver


def test_of_an_alert_that_ends_while_its_beginning_is_sent_the_end_is_said_too(
    webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = AlertChannel.objects.create(name="hook", url=f"json://{webhook.at}/in")
    alert, send = opened(), delivery._send

    def ends_meanwhile(*given: Any) -> None:
        send(*given)
        evaluation.end(alert, note="over")

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(delivery, "_send", ends_meanwhile)
        assert delivery.deliver() == 1
    assert list(channel.notices.order_by("pk").values_list("kind", "delivery")) == [("start", "sent"), ("end", "waits")]
    assert delivery.deliver() == 1
    assert webhook.posts[1][1]["title"].startswith("Ended: ")


def test_not_more_than_wanted_and_not_in_quiet_hours_but_nothing_is_lost(webhook: Webhook, signed_in: SignedIn) -> None:
    channel = AlertChannel.objects.create(name="hook", url=f"json://{webhook.at}/in", hourly_cap=1)
    opened()
    assert delivery.deliver() == 1
    opened()
    opened()
    assert delivery.deliver() == 0, "one in an hour"
    page = signed_in().get(Alert.objects.latest("pk").get_absolute_url()).text
    assert "to hook: not sent yet" in page
    assert "(not more than 1 in an hour)" in page
    now = timezone.now()
    quiet = {"quiet_from": (now - timedelta(hours=1)).time(), "quiet_until": (now + timedelta(hours=1)).time()}
    AlertChannel.objects.update(hourly_cap=5, **quiet)
    assert delivery.deliver() == 0, "quiet hours"
    page = signed_in().get(Alert.objects.latest("pk").get_absolute_url()).text
    assert f"(quiet hours until {quiet['quiet_until']:%H:%M} (UTC))" in page
    AlertChannel.objects.update(quiet_from=None, quiet_until=None)
    assert delivery.deliver() == 1
    assert webhook.posts[1][1]["title"] == "2 alerts"
    opened()
    AlertChannel.objects.update(enabled=False)
    assert delivery.deliver() == 0
    assert channel.notices.filter(delivery="waits").count() == 0


def test_a_channel_that_does_not_work_is_shown_and_tried_again(webhook: Webhook, signed_in: SignedIn) -> None:
    channel = AlertChannel.objects.create(name="hook", url=f"json://{webhook.at}/in")
    set_terms(name="channels", retry_first_wait_seconds=0.1)
    opened()
    webhook.status = 503
    assert delivery.deliver() == 0
    page = signed_in("reviewer").get("/alerts/").text
    assert "The channel <q>hook</q> does not work" in page
    assert "503" in page
    assert "Broken</span>" in signed_in("admin").get("/alerts/rules/").text
    webhook.status = 200
    AlertChannel.objects.update(retry_at=None)
    assert delivery.deliver() == 1
    channel.refresh_from_db()
    assert channel.last_error == ""
    assert "does not work" not in signed_in("reviewer").get("/alerts/").text


def test_who_watches_has_it_said_by_a_job_or_where_none_can_by_itself(webhook: Webhook) -> None:
    AlertChannel.objects.create(name="hook", url=f"json://{webhook.at}/in")
    rules.configure(by="admin", name="Nobody works", measure="job_processes", side="below", limit=1)
    watch.look()
    assert [post["title"] for _, post in webhook.posts] == ["Alert: Nobody works"]
    watch.look()
    assert len(webhook.posts) == 1, "one round a minute, and nothing is said twice"


def test_while_redis_is_away_that_is_said_by_who_watches(webhook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    AlertChannel.objects.create(name="hook", url=f"json://{webhook.at}/in")
    rules.configure(by="admin", name="No Redis", measure="redis", side="below", limit=1)
    nowhere = "redis://127.0.0.1:1/0"
    with monkeypatch.context() as away, override_settings(CACHES={"default": settings.CACHES["default"] | {"LOCATION": nowhere}}):
        away.setitem(settings.RQ_QUEUES["default"], "URL", nowhere)
        watch.look()
    assert [post["title"] for _, post in webhook.posts] == ["Alert: No Redis"]


def test_an_address_is_checked_kept_and_never_shown(signed_in: SignedIn) -> None:
    client, page = signed_in("admin"), "/admin/runs/alertchannel/add/"
    form = {"name": "night", "enabled": "on", "hourly_cap": "5", "zone": "UTC"}
    assert "Enter a valid email address" in client.post(page, form | {"url": "mailto:nobody"}).text
    assert "no address of a channel" in client.post(page, form | {"url": "ftp://x"}).text
    assert client.post(page, form | {"url": "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#night"}).status_code == 302
    shown = client.get(f"/admin/runs/alertchannel/{AlertChannel.objects.get().pk}/change/").text
    assert "TIiajkdnlazkcOXrIdevi7FQ" not in shown
