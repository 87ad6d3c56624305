"""Who is told what about reviews, and what the bell counts."""

from datetime import time, timedelta

import pytest
from django.contrib.auth.models import User
from django.db.models import F
from django.urls import reverse
from django.utils import timezone

from reviews import claims, decisions, notices, numbers
from reviews.models import Decision, Notice, NoticeSettings, Review, ReviewEvent, Route
from reviews.views import notices as views
from tests import agents
from tests.interleaved import behind
from tests.reviewing import MINUTES, group_of, opened, signed_in

pytestmark = pytest.mark.django_db
SECRET = "the customer's card 4111"


def told(person: User) -> list[str]:
    return list(Notice.objects.filter(user=person).order_by("pk").values_list("kind", flat=True))


def earlier(by: timedelta) -> None:
    Notice.objects.update(at=F("at") - by)


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
    assert "71 %: 15 of the 21 whose review you had open" in page
    assert f"since {now - timedelta(days=7):%Y-%m-%d}" in page
    for browser, sent in ((client, opened("guessing")), (signed_in(people["reviewer2"]), opened("guessing"))):
        form = {"decision": "approve", "seen": sent.fingerprint}
        told = browser.post(reverse("decide_review", args=[sent.pk]), form, follow=True).text
        is_hurried = browser is client
        assert (mine.warning in told, mine.warning in browser.get(reverse("inbox")).text) == (is_hurried, is_hurried)
    assert "reviewer2" not in page
    assert "reviewer2" in signed_in(people["admin"]).get(reverse("numbers")).text


__all__ = ["agents"]
