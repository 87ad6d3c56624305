"""Who is told what about reviews, by the bell, by mail and in channels; mail and webhooks go over real sockets."""

from collections.abc import Iterator
from datetime import datetime, time, timedelta

import pytest
from apprise.plugins.slack import NotifySlack
from django.contrib.auth.models import User
from django.db.models import F
from django.db.models.functions import Now
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from reviews import claims, decisions, delivery, notices, numbers, sweep
from reviews.models import Channel, Decision, Notice, NoticeSettings, Review, ReviewEvent, Route
from reviews.views import notices as views
from runs import dispatch, jobs
from tests import agents
from tests.interleaved import behind
from tests.letterbox import MailServer, Webhook
from tests.test_claims import MINUTES, group_of, opened, signed_in

pytestmark = pytest.mark.django_db
SECRET = "the customer's card 4111"


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


def told(person: User) -> list[str]:
    return list(Notice.objects.filter(user=person).order_by("pk").values_list("kind", flat=True))


def earlier(by: timedelta) -> None:
    Notice.objects.update(at=F("at") - by)


def words(server: MailServer) -> str:
    return str(server.letters[-1].get_payload(decode=True).decode())


# --- whom -----------------------------------------------------------------------------------------------------------


def test_a_new_review_is_told_to_its_group_or_to_everybody_who_may_decide(people: dict[str, User]) -> None:
    opened()
    notices.tell_due()
    assert {name for name, person in people.items() if told(person)} == {"operator", "reviewer", "reviewer2", "admin"}
    Notice.objects.all().delete()
    Route.objects.create(group=group_of("Card desk", people["reviewer2"], people["outsider"]))
    opened()
    notices.tell_due()
    notices.tell_due()
    assert {name for name, person in people.items() if told(person)} == {"reviewer2"}


def test_reminders_come_at_half_and_at_nine_tenths_and_after_a_claim_to_its_holder_alone(people: dict[str, User]) -> None:
    review = opened("patient")
    notices.tell_due()
    notices.tell_due()
    assert told(people["reviewer"]) == ["new"]
    moments = []
    for kind in ("half", "last"):
        review.refresh_from_db()
        assert review.tell_at is not None
        moments.append((review.tell_at - review.opened_at) / (review.due_at - review.opened_at))
        passed = review.tell_at - timezone.now() + MINUTES[1]
        Review.objects.update(**{name: F(name) - passed for name in ("opened_at", "due_at", "tell_at")})
        claims.claim(review.pk, people["reviewer2"])
        notices.tell_due()
        assert told(people["reviewer2"])[-1] == kind
    assert [round(one, 3) for one in moments] == [0.5, 0.9]
    assert told(people["reviewer"]) == ["new"]
    review.refresh_from_db()
    assert review.tell_at is None
    assert [one.about for one in ReviewEvent.objects.filter(kind="reminded")] == list(notices.PASSED.values())


def test_what_was_decided_at_once_is_told_to_nobody(people: dict[str, User]) -> None:
    review = opened()
    decisions.decide(review.pk, actor=people["reviewer"], kind="approve", seen=review.fingerprint, reason="fine")
    notices.tell_due()
    assert not Notice.objects.exists()


# --- the bell -------------------------------------------------------------------------------------------------------


def test_the_bell_counts_until_the_review_is_opened_closed_or_all_is_read(people: dict[str, User]) -> None:
    client, reviews = signed_in(people["reviewer"]), [opened() for _ in range(3)]
    assert "Nobody needs to tell you anything" in client.get(reverse("notices")).text
    notices.tell_due()
    assert 'aria-label="Notices, 3 unread"' in client.get(reverse("bell")).text
    page = client.get(reverse("notices")).text
    assert page.count("Unread: ") == 3
    client.post(reverse("review_here", args=[reviews[0].pk]))
    assert "2 unread" in client.get("/").text
    decisions.decide(reviews[1].pk, actor=people["reviewer2"], kind="reject", seen=reviews[1].fingerprint, reason="no")
    assert "1 unread" in client.get(reverse("bell")).text
    notices.settle()
    assert Notice.objects.filter(user=people["reviewer"], read_at=None).count() == 1
    client.post(reverse("read_notices"))
    assert 'aria-label="Notices"' in client.get(reverse("bell")).text
    assert "unread" in signed_in(people["reviewer2"]).get(reverse("bell")).text


def test_settings_are_checked_beside_their_fields(people: dict[str, User]) -> None:
    client, address = signed_in(people["reviewer"]), reverse("notice_settings")
    sent = {"mail": "on", "digest_minutes": "30", "hourly_cap": "4", "quiet_from": "22:00", "quiet_until": "", "zone": "Nowhere"}
    page = client.post(address, sent)
    assert page.status_code == 422
    for said in ("has no mail address", "Give both times", "Select a valid choice"):
        assert said in page.text
    assert 'value="22:00"' in page.text
    User.objects.update(email="r@example.com")
    assert client.post(address, sent | {"quiet_until": "06:00", "zone": "Europe/Berlin"}).status_code == 302
    kept = NoticeSettings.objects.get()
    assert (kept.mail, kept.quiet_until, kept.zone) == (True, time(6), "Europe/Berlin")


def test_old_notices_go_and_the_bell_counts_to_a_hundred(people: dict[str, User], monkeypatch: pytest.MonkeyPatch) -> None:
    me, client = people["reviewer"], signed_in(people["reviewer"])
    closed, open_one = opened(), opened()
    Notice.objects.bulk_create([Notice(user=me, review=open_one, kind="new") for _ in range(150)])
    Notice.objects.create(user=me, review=closed, kind="new")
    assert notices.counts(me) == (2, 100)
    assert 'aria-label="Notices, more than 99 unread"' in client.get(reverse("bell")).text
    decisions.decide(closed.pk, actor=me, kind="reject", seen=closed.fingerprint, reason="no")
    notices.prune()
    assert Notice.objects.count() == 151, "closed, but told just now"
    earlier(notices.KEPT_FOR)
    monkeypatch.setattr(views, "MOST", 60)
    page = client.get(f"{reverse('notices')}?page=2").text
    assert (page.count("review " + str(open_one.pk)), "Older" in page) == (10, False)
    notices.prune()
    assert set(Notice.objects.values_list("review", flat=True)) == {open_one.pk}


def test_two_tabs_that_save_the_first_settings_at_one_moment(transactional_db: None, people: dict[str, User]) -> None:
    client, sent = signed_in(people["reviewer"]), {"digest_minutes": "30", "hourly_cap": "4", "zone": "UTC"}
    with behind(lambda: client.post(reverse("notice_settings"), sent)) as second:
        NoticeSettings.objects.create(user=people["reviewer"])
        second.waits()
    assert (second.result.status_code, NoticeSettings.objects.get().hourly_cap) == (302, 4)


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
    monkeypatch.setattr(NotifySlack, "webhook_url", f"http://{webhook.at}/services")
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
        "json://10.0.0.1/x": "an address that is not public",
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


# --- numbers --------------------------------------------------------------------------------------------------------


def test_numbers_of_a_reviewer_and_a_gentle_word(people: dict[str, User]) -> None:
    me, review = people["reviewer"], opened()
    now = timezone.now()

    def decided(seconds: float | None, kind: str = "approve", *, actor: User = me, days: int = 0) -> Decision:
        at = now - timedelta(days=days)
        since = None if seconds is None else at - timedelta(seconds=seconds)
        said = {"actor": actor, "kind": kind, "seen_fingerprint": "", "decided_at": at, "opened_at": since, "final": False}
        return Decision(review=review, revoked_at=None, **said)

    client = signed_in(me)
    assert "You have decided nothing yet" in client.get(reverse("numbers")).text
    reviews = [opened() for _ in range(24)]
    made = [decided(1) for _ in range(15)] + [decided(20, "reject") for _ in range(6)] + [decided(None), decided(1, days=8)]
    for one, of in zip(made, reviews, strict=False):
        one.review = of
    others = decided(40, actor=people["reviewer2"])
    Decision.objects.bulk_create([*made, others])
    (mine,) = numbers.of(me.pk)
    assert (mine.decided, mine.approved, mine.timed, mine.quick, mine.median_seconds) == (22, 16, 21, 15, 1.0)
    assert mine.warning == "Of the last 21 decisions 15 took under 3 s."
    page = client.get(reverse("numbers")).text
    assert mine.warning in page
    assert "reviewer2" not in page
    assert "reviewer2" in signed_in(people["admin"]).get(reverse("numbers")).text


__all__ = ["agents"]
