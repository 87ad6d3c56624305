"""What tests of the inbox stand on: a review as a run opens it, its people, and many acts at one moment."""

import threading
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import Group, User
from django.db import connections
from django.test import Client

from reviews.models import Review
from runs import commands, executor, sdk
from tests import agents

MINUTES = [timedelta(minutes=number) for number in range(100)]


@sdk.agent("patient", title="Patient", version="1")
def patient(run: sdk.Run, order: agents.Order) -> agents.Answer:
    return agents.Answer(said=run.step("ask", sdk.ask_human(agents.Choice, within=3600), question="Which?").colour)


def opened(slug: str = "paying", text: str = "hello") -> Review:
    run = commands.start(slug, {"text": text, "number": 3}, by="operator")
    executor.advance(run.pk, owner="test")
    return Review.objects.open().get(run=run)


def fresh(review: Review) -> Review:
    return Review.objects.with_people().get(pk=review.pk)


def holder(review: Review) -> str:
    held = fresh(review).held()
    return str(held.reviewer) if held else ""


def kinds(review: Review) -> list[str]:
    return list(review.events.order_by("pk").values_list("kind", flat=True))


def group_of(name: str, *people: User) -> Group:
    group, _ = Group.objects.get_or_create(name=name)
    for person in people:
        person.groups.add(group)
    return group


def signed_in(person: User) -> Client:
    client = Client()
    client.force_login(person)
    return client


def at_once(*acts: Any) -> list[Any]:
    """What each returned, each in a thread with a connection of its own, all from one barrier."""
    barrier, results = threading.Barrier(len(acts)), [None] * len(acts)

    def carry_out(number: int, act: Any) -> None:
        try:
            barrier.wait(30)
            results[number] = act()
        finally:
            connections.close_all()

    threads = [threading.Thread(target=carry_out, args=one) for one in enumerate(acts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results
