"""Whose a review is, and from when on: reassigned to a person, snoozed until a time."""

from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from django.utils import timezone

from reviews import assignments, claims
from reviews.models import Notice, NoticeSettings, Review
from runs import commands
from tests.reviewing import MINUTES, fresh, holder, kinds, opened, signed_in

pytestmark = pytest.mark.django_db


def test_a_review_is_given_to_a_person_and_back_with_a_note(people: dict[str, User]) -> None:
    review, client = opened(), signed_in(people["reviewer"])
    claims.claim(review.pk, people["reviewer"])
    address = reverse("reassign_review", args=[review.pk])
    assert client.post(address, {"person": people["reviewer2"].pk, "note": ""}).status_code == 422
    outsider = client.post(address, {"person": people["outsider"].pk, "note": "You."})
    assert "Select a valid choice" in outsider.text
    assert client.post(address, {"person": people["reviewer2"].pk, "note": "You know him."}).status_code == 302
    assert (fresh(review).assignee, holder(review)) == (people["reviewer2"], "")
    assert Notice.objects.get(user=people["reviewer2"]).kind == "assigned"
    back = signed_in(people["reviewer2"]).post(address, {"person": "nobody", "note": "I do not."})
    assert back.status_code == 302
    assert fresh(review).assignee is None
    again = client.post(address, {"person": "nobody", "note": "Once more."})
    assert "It is assigned to nobody. Choose a person." in again.text
    assert kinds(review) == ["claimed", "reassigned", "reassigned"]


def test_a_review_is_snoozed_until_a_time_by_the_clock_of_the_reviewer(people: dict[str, User]) -> None:
    review, client = opened(), signed_in(people["reviewer"])
    NoticeSettings.objects.create(user=people["reviewer"], zone="Asia/Tokyo")
    address = reverse("snooze_review", args=[review.pk])
    day = (timezone.now() + timedelta(days=2)).strftime("%Y-%m-%d")
    assert client.post(address, {"until": f"{day}T09:00"}).status_code == 302
    assert fresh(review).snoozed_until == datetime.fromisoformat(f"{day}T00:00:00+00:00")
    assert "End the snooze" in client.get(review.get_absolute_url()).text
    client.post(reverse("wake_review", args=[review.pk]))
    assert fresh(review).snoozed_until is None
    assert client.post(address, {"later": "hour"}).status_code == 302
    assert fresh(review).is_snoozed
    assert kinds(review) == ["snoozed", "woken", "snoozed"]


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ({"until": "2020-01-01T09:00"}, "That time has passed"),
        ({"until": "2099-01-01T09:00"}, "It must be decided by"),
        ({"until": "tomorrow"}, "Write a date and a time"),
        ({"until": ""}, "This field is required"),
        ({"later": "monday", "until": ""}, "It must be decided by"),
    ],
)
def test_a_time_that_will_not_do_is_refused_beside_the_field(people: dict[str, User], sent: dict[str, str], said: str) -> None:
    review = opened()
    Review.objects.update(due_at=timezone.now() + MINUTES[20])
    answer = signed_in(people["reviewer"]).post(reverse("snooze_review", args=[review.pk]), sent)
    assert answer.status_code == 422
    assert said in answer.text
    assert sent.get("until", "") in answer.text
    assert fresh(review).snoozed_until is None


@pytest.mark.parametrize(("zone", "until"), [("America/New_York", "9999-12-31T23:59"), ("Asia/Tokyo", "0001-01-01T00:00")])
def test_a_snooze_has_an_end_that_every_page_can_read(people: dict[str, User], zone: str, until: str) -> None:
    review, client = opened(), signed_in(people["reviewer"])
    NoticeSettings.objects.create(user=people["reviewer"], zone=zone)
    answer = client.post(reverse("snooze_review", args=[review.pk]), {"until": until})
    assert answer.status_code == 422
    assert "at most 90 days" in answer.text or "That time has passed" in answer.text
    assert client.get(review.get_absolute_url()).status_code == 200
    assert fresh(review).snoozed_until is None


@pytest.mark.parametrize(
    ("now", "zone", "offered"),
    [
        (
            "2026-03-04T10:00",
            "UTC",
            {"hour": "03-04 11:00", "afternoon": "03-04 16:00", "tomorrow": "03-05 09:00", "monday": "03-09 09:00"},
        ),
        ("2026-03-04T16:00", "UTC", {"hour": "03-04 17:00", "tomorrow": "03-05 09:00", "monday": "03-09 09:00"}),
        ("2026-03-08T10:00", "UTC", {"hour": "03-08 11:00", "afternoon": "03-08 16:00", "tomorrow": "03-09 09:00"}),
        (
            "2026-03-04T20:00",
            "Asia/Tokyo",
            {"hour": "03-04 21:00", "afternoon": "03-05 07:00", "tomorrow": "03-06 00:00", "monday": "03-09 00:00"},
        ),
        (
            "2026-03-28T12:00",
            "Europe/Berlin",
            {"hour": "03-28 13:00", "afternoon": "03-28 15:00", "tomorrow": "03-29 07:00", "monday": "03-30 07:00"},
        ),
    ],
)
def test_times_that_are_offered(now: str, zone: str, offered: dict[str, str]) -> None:
    found = assignments.later(NoticeSettings(zone=zone), datetime.fromisoformat(now).replace(tzinfo=UTC))
    assert {name: f"{at.astimezone(UTC):%m-%d %H:%M}" for name, _, at in found} == offered


def test_nothing_is_changed_of_what_is_closed(people: dict[str, User]) -> None:
    review = opened()
    commands.cancel(review.run_id, by="operator")
    client = signed_in(people["reviewer"])
    for name in ("take_over_review", "reassign_review", "snooze_review"):
        assert "no longer open" in client.get(reverse(name, args=[review.pk])).text
        sent = {"note": "x", "person": people["reviewer2"].pk, "later": "hour"}
        answer = client.post(reverse(name, args=[review.pk]), sent)
        assert (answer.status_code, "so nothing was changed" in answer.text) == (422, True)
    assert kinds(review) == []
