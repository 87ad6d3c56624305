"""The socket of the inbox says which reviews changed, and nothing else."""

import json

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session

from reviews import claims, decisions, live
from reviews.models import Review
from runs import commands, consumers, executor
from runs import live as bell
from tests import agents
from tests.test_live import hang_up, opened

pytestmark = pytest.mark.django_db(transaction=True)


def new_review():
    run = commands.start("guessing", {"text": "a secret", "number": 3}, by="operator")
    executor.advance(run.pk, owner="test")
    return Review.objects.get(run=run)


async def said(there):
    return json.loads((await there.receive_output(timeout=10))["text"])


async def test_opening_claiming_and_deciding_each_ring_with_a_number_and_no_content(people):
    there = await opened("/ws/inbox/", people["reviewer"])
    review = await sync_to_async(new_review)()
    assert await said(there) == {"changed": {str(review.pk): ""}}
    await sync_to_async(claims.claim)(review.pk, people["reviewer2"])
    assert await said(there) == {"changed": {str(review.pk): "who"}}
    await sync_to_async(claims.release)(review.pk, people["reviewer2"])
    assert await said(there) == {"changed": {str(review.pk): "who"}}
    await sync_to_async(decisions.decide)(review.pk, actor=people["reviewer2"], kind="approve", seen=review.fingerprint)
    assert await said(there) == {"changed": {str(review.pk): "decided"}}
    await there.disconnect()


@pytest.mark.parametrize(
    ("before", "later", "said"),
    [("", "who", ""), ("decided", "who", "decided"), ("who", "", ""), ("who", "decided", "decided"), ("decided", "", "")],
)
def test_of_what_is_said_of_a_review_the_latest_counts_where_it_is_more_than_who_is_at_it(before, later, said):
    assert bell.joined({"7": before, "8": "who"}, {"7": later}) == {"7": said, "8": "who"}


async def test_a_cancelled_run_rings_too(people):
    review = await sync_to_async(new_review)()
    there = await opened("/ws/inbox/", people["reviewer"])
    await sync_to_async(commands.cancel)(review.run_id, by="operator")
    assert await said(there) == {"changed": {str(review.pk): "cancelled"}}
    await there.disconnect()


async def test_a_burst_of_changes_is_few_messages_that_name_every_review(people):
    there = await opened("/ws/inbox/", people["reviewer"])
    await sync_to_async(lambda: [live.nudge(number) for number in range(1, 501)])()
    heard = [await said(there)]
    while "500" not in heard[-1]["changed"]:
        heard.append(await said(there))
    assert sorted(int(number) for one in heard for number in one["changed"]) == list(range(1, 501))
    assert len(heard) < 10
    await there.disconnect()


async def test_whoever_loses_the_permission_is_shut_out_at_the_next_change(people):
    there = await opened("/ws/inbox/", people["reviewer"])
    await people["reviewer"].groups.aclear()
    await sync_to_async(new_review)()
    assert (await there.receive_output(timeout=10))["code"] == 4403


async def test_whoever_was_removed_disabled_or_signed_out_is_shut_out_within_five_seconds(people):
    """H8: nothing rings, and the change may have been made by hand in the database."""
    assert consumers.FALLBACK_SECONDS <= 4
    names = ("reviewer", "reviewer2", "admin", "operator")
    removed, disabled, signed_out, stays = [await opened("/ws/inbox/", people[name]) for name in names]
    await people["reviewer"].groups.aclear()
    await User.objects.filter(username="reviewer2").aupdate(is_active=False)
    async for session in Session.objects.all():
        if session.get_decoded()["_auth_user_id"] == str(people["admin"].pk):
            await session.adelete()
    for there in (removed, disabled, signed_out):
        assert (await there.receive_output(timeout=10))["code"] == consumers.SIGN_IN_AGAIN
    assert await stays.receive_nothing()


__all__ = ["agents", "hang_up"]
