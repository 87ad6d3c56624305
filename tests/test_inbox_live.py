"""The socket of the inbox says which reviews changed, and nothing else."""

import json

import pytest
from asgiref.sync import sync_to_async

from reviews import claims, decisions, live
from reviews.models import Review
from runs import commands, executor
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
    assert await said(there) == {"changed": review.pk}
    await sync_to_async(claims.claim)(review.pk, people["reviewer2"])
    assert await said(there) == {"changed": review.pk}
    await sync_to_async(claims.release)(review.pk, people["reviewer2"])
    assert await said(there) == {"changed": review.pk}
    await sync_to_async(decisions.decide)(review.pk, actor=people["reviewer2"], kind="approve", seen=review.fingerprint)
    assert await said(there) == {"changed": review.pk}
    await there.disconnect()


async def test_a_cancelled_run_rings_too(people):
    review = await sync_to_async(new_review)()
    there = await opened("/ws/inbox/", people["reviewer"])
    await sync_to_async(commands.cancel)(review.run_id, by="operator")
    assert await said(there) == {"changed": review.pk}
    await there.disconnect()


async def test_a_burst_of_changes_is_few_messages_that_name_every_review(people):
    there = await opened("/ws/inbox/", people["reviewer"])
    await sync_to_async(lambda: [live.nudge(number) for number in range(1, 501)])()
    heard = [await said(there)]
    while 500 not in heard[-1]["changed"]:
        heard.append(await said(there))
    assert sorted(number for one in heard for number in one["changed"]) == list(range(1, 501))
    assert len(heard) < 10
    await there.disconnect()


async def test_whoever_loses_the_permission_is_shut_out_at_the_next_change(people):
    there = await opened("/ws/inbox/", people["reviewer"])
    await people["reviewer"].groups.aclear()
    await sync_to_async(new_review)()
    assert (await there.receive_output(timeout=10))["code"] == 4403


__all__ = ["agents", "hang_up"]
