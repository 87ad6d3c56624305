"""What was told is sent by mail and to channels, over real sockets: in digests, and once more or not at all where that fails."""

from collections.abc import Iterator
from datetime import datetime, time, timedelta
from typing import Any

import pytest
from apprise.plugins import slack
from django.contrib.auth.models import User
from django.db.models import F
from django.db.models.functions import Now
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from reviews import claims, decisions, delivery, notices, sweep
from reviews.models import Channel, Decision, Notice, NoticeSettings, Review, Route
from runs import dispatch, jobs
from tests.letterbox import MailServer, Webhook
from tests.reviewing import MINUTES, group_of, opened, signed_in
from tests.shop import set_terms
from tests.test_notices import SECRET, earlier

pytestmark = pytest.mark.django_db


@pytest.fixture
def mail(settings: Settings) -> Iterator[MailServer]:
    with MailServer() as server:
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", server.port
        settings.PUBLIC_URL = "https://agentops.example/"
        yield server


@pytest.fixture
def webhook(settings: Settings) -> Iterator[Webhook]:
    settings.ALLOWED_PRIVATE_NETWORKS = ["127.0.0.0/8"]
    with Webhook() as server:
        yield server


def reads_mail(person: User, **wanted: object) -> NoticeSettings:
    User.objects.filter(pk=person.pk).update(email=f"{person.username}@example.com")
    return NoticeSettings.objects.create(user=person, **({"mail": True, "digest_minutes": 0} | wanted))


def words(server: MailServer) -> str:
    return str(server.letters[-1].get_payload(decode=True).decode())


# --- mail -----------------------------------------------------------------------------------------------------------


def test_a_mail_names_what_waits_and_where_and_not_what_it_is_about(people: dict[str, User], mail: MailServer) -> None:
    reads_mail(people["reviewer"], zone="Asia/Tokyo")
    review, other = opened("patient", text=SECRET), opened(text=SECRET)
    notices.tell_due()
    assert delivery.deliver() == 1
    assert delivery.deliver() == 0
    (letter,) = mail.letters
    assert (letter["to"], letter["subject"]) == ("reviewer@example.com", "2 reviews wait for a decision")
    said = words(mail)
    for line in (
        f"https://agentops.example/reviews/{review.pk}/",
        f"https://agentops.example/reviews/{other.pk}/",
        "Paying, Pay (Gated)",
    ):
        assert line in said
    assert "(Asia/Tokyo)" in said
    assert SECRET not in letter.as_string()
    assert set(Notice.objects.filter(user=people["reviewer"]).values_list("delivery", flat=True)) == {"sent"}
    assert set(Notice.objects.filter(user=people["reviewer2"]).values_list("delivery", flat=True)) == {"none"}


def test_the_link_of_a_mail_opens_the_page_after_the_sign_in_and_decides_nothing(people: dict[str, User]) -> None:
    from tests import cast

    review, client = opened(), Client()
    sent_to = client.get(review.get_absolute_url())["Location"]
    assert sent_to == f"/accounts/login/?next=/reviews/{review.pk}/"
    signed = client.post(sent_to, {"login": "reviewer", "password": cast.PASSWORD})
    assert signed["Location"] == f"/reviews/{review.pk}/"
    assert client.get(signed["Location"]).status_code == 200
    assert Review.objects.get().is_open
    assert not Decision.objects.exists()


def test_what_happens_within_the_digest_comes_in_one_mail(people: dict[str, User], mail: MailServer) -> None:
    reads_mail(people["reviewer"], digest_minutes=15)
    for minutes in (10, 4):
        opened()
        notices.tell_due()
        assert delivery.deliver() == 0
        earlier(MINUTES[minutes])
    opened()
    notices.tell_due()
    earlier(MINUTES[2])
    assert delivery.deliver() == 1
    assert mail.letters[0]["subject"] == "3 reviews wait for a decision"


def test_in_quiet_hours_and_beyond_the_cap_mail_waits_and_is_not_lost(people: dict[str, User], mail: MailServer) -> None:
    now = timezone.now()
    quiet = {"quiet_from": (now - MINUTES[30]).time(), "quiet_until": (now + MINUTES[30]).time()}
    pace = reads_mail(people["reviewer"], hourly_cap=1, **quiet)
    opened()
    notices.tell_due()
    assert delivery.deliver() == 0
    NoticeSettings.objects.filter(pk=pace.pk).update(quiet_from=None, quiet_until=None)
    assert delivery.deliver() == 1
    opened()
    notices.tell_due()
    assert delivery.deliver() == 0, "one in an hour"
    Notice.objects.filter(delivery="sent").update(sent_at=F("sent_at") - timedelta(hours=1))
    assert delivery.deliver() == 1
    assert len(mail.letters) == 2


@pytest.mark.parametrize(
    ("start", "end", "zone", "at", "quiet"),
    [
        ("22:00", "06:00", "UTC", "23:00", True),
        ("22:00", "06:00", "UTC", "05:59", True),
        ("22:00", "06:00", "UTC", "06:00", False),
        ("12:00", "13:00", "UTC", "12:30", True),
        ("12:00", "13:00", "UTC", "13:30", False),
        ("12:00", "12:00", "UTC", "12:00", False),
        ("22:00", "06:00", "Asia/Tokyo", "14:00", True),
        ("22:00", "06:00", "America/New_York", "14:00", False),
    ],
)
def test_quiet_hours_are_those_of_the_readers_clock(start: str, end: str, zone: str, at: str, quiet: bool) -> None:
    pace = NoticeSettings(quiet_from=time.fromisoformat(start), quiet_until=time.fromisoformat(end), zone=zone)
    assert pace.is_quiet(datetime.fromisoformat(f"2026-03-04T{at}+00:00")) == quiet


def test_mail_about_what_was_decided_or_claimed_meanwhile_is_not_sent(people: dict[str, User], mail: MailServer) -> None:
    reads_mail(people["reviewer"])
    decided, claimed, mine = opened(), opened(), opened()
    notices.tell_due()
    decisions.decide(decided.pk, actor=people["reviewer2"], kind="approve", seen=decided.fingerprint, reason="fine")
    claims.claim(claimed.pk, people["reviewer2"])
    claims.claim(mine.pk, people["reviewer"])
    assert delivery.deliver() == 1
    assert mail.letters[0]["subject"] == "1 review waits for a decision"
    assert sorted(Notice.objects.filter(user=people["reviewer"]).values_list("delivery", flat=True)) == [
        "dropped",
        "dropped",
        "sent",
    ]


def test_a_mail_server_that_refuses_is_shown_and_tried_again_later(people: dict[str, User], mail: MailServer) -> None:
    pace = reads_mail(people["reviewer"])
    mail.refuses = "451 come back later"
    opened()
    notices.tell_due()
    assert delivery.deliver() == 0
    pace.refresh_from_db()
    assert (pace.failures, pace.retry_at is not None, "451" in pace.last_error) == (1, True, True)
    NoticeSettings.objects.update(retry_at=Now() + MINUTES[1])
    assert "The last mail was not sent" in signed_in(people["reviewer"]).get(reverse("notices")).text
    mail.refuses = ""
    assert delivery.deliver() == 0, "not before the pause is over"
    NoticeSettings.objects.update(retry_at=Now())
    assert delivery.deliver() == 1
    pace.refresh_from_db()
    assert (pace.failures, pace.last_error, pace.sending_until) == (0, "", None)


def test_whoever_was_sending_and_died_is_followed_by_another(people: dict[str, User], mail: MailServer) -> None:
    reads_mail(people["reviewer"], sending_until=timezone.now() + MINUTES[1])
    opened()
    notices.tell_due()
    assert delivery.deliver() == 0
    NoticeSettings.objects.update(sending_until=Now())
    assert delivery.deliver() == 1


def test_the_sweeper_has_it_sent_by_a_job_process(transactional_db: None, people: dict[str, User]) -> None:
    opened()
    reads_mail(people["reviewer"])
    sweep.sweep()
    sweep.sweep()
    assert dispatch.OFFERED[delivery.JOB] is delivery.deliver
    (job,) = [job for job in dispatch._queue().jobs if job.func_name != dispatch.ADVANCE]
    assert jobs.AllowedJob.fetch(job.id, connection=job.connection, serializer=job.serializer).func is delivery.deliver


# --- channels -------------------------------------------------------------------------------------------------------


def test_a_channel_hears_of_its_groups_only_and_by_a_webhook(people: dict[str, User], webhook: Webhook) -> None:
    desk = group_of("Card desk", people["reviewer"])
    channel = Channel.objects.create(name="desk", url=f"json://desk:pass@{webhook.at}/hook?-x=1", digest_minutes=0)
    channel.groups.add(desk)
    opened(text=SECRET)
    notices.tell_due()
    assert delivery.deliver() == 0
    Route.objects.create(group=desk)
    review = opened(text=SECRET)
    notices.tell_due()
    assert delivery.deliver() == 1
    ((path, body),) = webhook.posts
    assert path == "/hook?x=1"
    assert body["title"] == "1 review waits for a decision"
    assert f"/reviews/{review.pk}/" in body["message"]
    assert SECRET not in str(body)


def test_a_channel_of_slack_is_sent_to_by_apprise(
    people: dict[str, User], webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slack.NotifySlack, "webhook_url", f"http://{webhook.at}/services")
    Channel.objects.create(name="slack", url="slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#reviews", digest_minutes=0)
    opened(text=SECRET)
    notices.tell_due()
    assert delivery.deliver() == 1
    ((path, body),) = webhook.posts
    assert path == "/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"
    assert "1 review waits for a decision" in str(body)
    assert SECRET not in str(body)


@pytest.mark.parametrize("network", ["127.0.0.0/8", None])
def test_a_channel_that_leads_into_a_private_network_or_elsewhere_is_sent_nothing(
    people: dict[str, User], webhook: Webhook, settings: Settings, network: str | None
) -> None:
    """Also where the host that was given sends us on; the error is kept, and the notice waits."""
    settings.ALLOWED_PRIVATE_NETWORKS = [network] if network else []
    webhook.status, webhook.headers = 302, {"Location": "http://169.254.169.254/latest/meta-data"}
    Channel.objects.create(name="inside", url=f"json://{webhook.at}/hook", digest_minutes=0)
    opened()
    notices.tell_due()
    assert delivery.deliver() == 0
    assert len(webhook.posts) == bool(network)
    channel = Channel.objects.get()
    assert "an address that is not public" in channel.last_error
    assert Notice.objects.filter(channel=channel, delivery="waits").count() == 1


def test_an_admin_sets_up_a_channel_whose_address_is_never_shown(people: dict[str, User], webhook: Webhook) -> None:
    client = signed_in(people["admin"])
    common = {"name": "desk", "enabled": "on", "digest_minutes": "5", "hourly_cap": "10", "zone": "UTC"}
    for url, said in {
        "": "Give the address of the channel",
        "rubbish": "This is no address of a channel that may be used",
        "syslog://": "This is no address of a channel that may be used",
        "slack://only-one": "The address is not complete",
        "json://": "The address is not complete",
        "json://10.0.0.1/x": "Nothing was sent there. An operator allows a network by ALLOWED_PRIVATE_NETWORKS.",
    }.items():
        page = client.post("/admin/reviews/channel/add/", common | {"url": url})
        assert (page.status_code, said in page.text) == (200, True), url
    assert client.post("/admin/reviews/channel/add/", common | {"url": f"json://{webhook.at}/token-9d3f"}).status_code == 302
    channel = Channel.objects.get()
    page = f"/admin/reviews/channel/{channel.pk}/change/"
    assert client.post(page, common | {"url": "", "digest_minutes": "7"}).status_code == 302
    channel.refresh_from_db()
    assert (channel.url, channel.digest_minutes) == (f"json://{webhook.at}/token-9d3f", 7)
    for path in (page, "/admin/reviews/channel/", f"{page.replace('change', 'history')}"):
        shown = client.get(path).text
        assert "token-9d3f" not in shown
    assert "json://127.0.0.1/..." in client.get(page).text


# --- what fails -----------------------------------------------------------------------------------------------------


def desk(webhook: Webhook, **wanted: Any) -> Channel:
    opened()
    channel = Channel.objects.create(name="desk", url=f"json://{webhook.at}/hook", digest_minutes=0, **wanted)
    notices.tell_due()
    return channel


def fresh(channel: Channel) -> Channel:
    return Channel.objects.get(pk=channel.pk)


@pytest.mark.parametrize("status", [401, 404])
def test_an_address_that_is_wrong_is_given_up_until_there_is_more_to_say_or_it_is_changed(
    people: dict[str, User], webhook: Webhook, status: int
) -> None:
    webhook.status = status
    channel = desk(webhook)
    for _ in range(3):
        assert delivery.deliver() == 0
    channel = fresh(channel)
    assert len(webhook.posts) == 1, "a second try could not help"
    assert (channel.failures, channel.retry_at, channel.gave_up_at is not None) == (0, None, True)
    assert f"The webhook answered {status}" in channel.last_error
    assert Notice.objects.filter(channel=channel, delivery="waits").count() == 1
    client, page = signed_in(people["admin"]), f"/admin/reviews/channel/{channel.pk}/change/"
    assert f"The webhook answered {status}" in client.get("/admin/reviews/channel/").text
    webhook.status = 200
    if status == 404:
        common = {"name": "desk", "enabled": "on", "digest_minutes": "0", "hourly_cap": "10", "zone": "UTC"}
        assert client.post(page, common | {"url": ""}).status_code == 302
        assert fresh(channel).last_error == ""
    else:
        opened()
        notices.tell_due()
    assert delivery.deliver() == 1
    assert (fresh(channel).gave_up_at, fresh(channel).last_error) == (None, "")
    assert not Notice.objects.filter(channel=channel, delivery="waits").exists(), "the one that was given up was sent with it"


@pytest.mark.parametrize("status", [429, 503])
def test_what_may_pass_is_tried_again_as_the_terms_of_the_dependency_say(
    people: dict[str, User], webhook: Webhook, status: int
) -> None:
    set_terms("channels", retry_attempts=2, retry_first_wait_seconds=100, retry_longest_wait_seconds=100)
    webhook.status, webhook.headers = status, {"Retry-After": "400"}
    channel = desk(webhook)
    before = timezone.now()
    assert delivery.deliver() == 0
    failed = fresh(channel)
    assert (failed.failures, failed.gave_up_at, len(webhook.posts)) == (1, None, 1)
    assert failed.retry_at is not None
    assert failed.retry_at >= before + timedelta(seconds=400), "what the other side asked for"
    assert delivery.deliver() == 0, "not before"
    assert len(webhook.posts) == 1
    Channel.objects.update(retry_at=Now())
    assert delivery.deliver() == 0
    assert (len(webhook.posts), fresh(channel).gave_up_at is not None) == (2, True), "two attempts are the most"
    set_terms("channels", retry_attempts=None)
    Channel.objects.update(gave_up_at=None, failures=40, failing_since=Now() - timedelta(days=1))
    assert delivery.deliver() == 0
    assert fresh(channel).gave_up_at is not None, "its time is over"


def test_what_is_switched_off_is_no_failure(people: dict[str, User], webhook: Webhook) -> None:
    set_terms("channels", enabled=False)
    channel = desk(webhook)
    assert delivery.deliver() == 0
    channel = fresh(channel)
    assert (channel.failures, channel.gave_up_at, channel.retry_at is not None, webhook.posts) == (0, None, True, [])
    assert "channels is switched off: an admin can switch it on again." in channel.last_error
    set_terms("channels", enabled=True)
    Channel.objects.update(retry_at=Now())
    assert delivery.deliver() == 1


def test_a_redirect_that_would_drop_the_message_is_no_success(people: dict[str, User], webhook: Webhook) -> None:
    with Webhook() as other:
        webhook.status, webhook.headers = 302, {"Location": f"http://{other.at}/there"}
        channel = desk(webhook)
        assert delivery.deliver() == 0
    assert "drops the message on the way: give that address instead" in fresh(channel).last_error


def test_what_is_secret_in_a_webhook_goes_to_its_own_host_alone(people: dict[str, User], webhook: Webhook) -> None:
    with Webhook() as other:
        webhook.status, webhook.headers = 307, {"Location": f"http://{other.at}/there"}
        channel = desk(webhook)
        Channel.objects.update(url=f"json://us:word@{webhook.at}/hook?+X-Key=secret")
        assert delivery.deliver() == 1
        assert (webhook.got[0]["X-Key"], webhook.got[0]["Authorization"]) == ("secret", "Basic dXM6d29yZA==")
        assert not {"X-Key", "Authorization"} & other.got[0].keys()
        assert other.posts[0][1]["type"] == webhook.posts[0][1]["type"] == "info"
    assert fresh(channel).last_error == ""


def test_a_mail_server_that_refuses_for_good_is_asked_once_and_the_page_says_what_to_do(
    people: dict[str, User], mail: MailServer
) -> None:
    pace = reads_mail(people["reviewer"])
    mail.refuses = "550 no such person"
    opened()
    notices.tell_due()
    for _ in range(2):
        assert delivery.deliver() == 0
    pace.refresh_from_db()
    assert (pace.failures, pace.retry_at, pace.gave_up_at is not None) == (0, None, True)
    client = signed_in(people["reviewer"])
    page = client.get(reverse("notices")).text
    assert "550" in page
    assert "That is not tried again by itself" in page
    mail.refuses = ""
    assert delivery.deliver() == 0
    sent = {"mail": "on", "digest_minutes": "0", "hourly_cap": "12", "zone": "UTC"}
    assert client.post(reverse("notice_settings"), sent).status_code == 302
    assert delivery.deliver() == 1
    assert "That is not tried again by itself" not in client.get(reverse("notices")).text
