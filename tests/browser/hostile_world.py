"""A world in which every text that an agent, a tool, a person or an address may fill is an attack."""

import random
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import Group, User
from django.utils import timezone

from agentops.seeding import filling
from agentops.seeding.story import Story
from reviews.models import Channel, Claim, Draft, Notice, NoticeSettings, Presence, Review, ReviewEvent, Route, SavedView
from runs import commands, event_log
from runs.engine.events import Draft as Event
from runs.engine.events import Kind
from runs.models import Alert, AlertChannel, AlertEvent, AlertRule, BreakerChange, Dependency, Hold, Run, RunView
from tests.attacks import ATTACKS, EVERY, one_after_the_other

TOGETHER = 40  # attacks as keys and values of one step
text = one_after_the_other()
SCHEMA = {"type": "object", "title": text(99), "properties": {"a": {"type": "string", "title": text(99), "description": EVERY}}}


def make(people: dict[str, User]) -> list[Run]:
    """An ended run, one that failed and one that waits for a person, and all that is around them."""
    group = Group.objects.create(name=text(150))
    mallory = User.objects.create(username=text(150), first_name=text(150))
    for one in (mallory, people["admin"]):
        one.groups.add(group)
    runs = [Run.objects.get(pk=filling.write_one(story)) for story in (_ended(mallory), _failed(mallory), _waiting(mallory))]
    _reviews(people["admin"], mallory, group)
    _monitoring(people["admin"], mallory)
    commands.configure("guessing", by=mallory.username, threshold=0.7)
    Hold.objects.create(run=runs[0], by=mallory.username, reason=text(300))
    RunView.objects.create(owner=people["admin"], name=text(60), group=group, query="text=x")
    return runs


def _begun(by: User) -> Story:
    now = timezone.now()
    story = Story(random.Random(1), now - timedelta(hours=2), now)
    told = {
        "agent": "guessing",
        "agent_version": text(40),
        "input": {"text": EVERY},
        "summary": text(160),
        "config": {"version": 1},
    }
    story.requested(told, by=by.username)
    return story


def _step(story: Story, given: Any, **more: Any) -> None:
    story.begins(f"{story.steps} {text(100)}", text(100), text(150), given, **more)


def _ended(by: User) -> Story:
    story = _begun(by)
    for first in range(0, len(ATTACKS), TOGETHER):
        some = ATTACKS[first : first + TOGETHER]
        _step(story, dict(zip(some, reversed(some), strict=True)))
        judged = {"confidence": 0.9, "threshold": 0.5, "source": text(100), "why": text(300), "alternatives": {text(60): 0.1}}
        alike = [{some[0]: one, some[1]: some[2]} for one in some[:5]]
        story.gives(
            {"list": some, "deep": {some[0]: {some[1]: {some[2]: {some[3]: some[4]}}}}, "alike": alike}, seconds=1, **judged
        )
    _step(story, EVERY)
    story.asks(_question("low_confidence"))
    story.decided("edit", {"a": text(200)}, by=by.username, after_seconds=9, reason=text(500))
    story.ends(Kind.RUN_SUCCEEDED, {"output": {"said": EVERY}, "missing": [{"step": 1, "title": text(100), "note": text(200)}]})
    return story


def _failed(by: User) -> Story:
    story = _begun(by)
    error = {"kind": text(60), "message": EVERY, "trace": EVERY}
    _step(story, [EVERY])
    story.fails(error, attempt=1, wait_seconds=1)
    story.fails(error, attempt=2, wait_seconds=None)
    story.ends(Kind.RUN_FAILED, {"error": error})
    return story


def _waiting(by: User) -> Story:
    story = _begun(by)
    _step(story, {"a": text(200)}, runs=False)
    story.asks(_question("gated") | {"proposal": {"a": EVERY}, "subject": "input"})
    return story


def _question(cause: str) -> dict[str, Any]:
    return {
        "cause": cause, "subject": "output", "proposal": {"a": text(200)}, "why": EVERY, "schema": SCHEMA, "risk": "normal",
        "allowed": ["approve", "edit", "reject", "send_back", "take_over"], "effect": "none", "source": text(100),
        "alternatives": {text(60): 0.5}, "confidence": 0.4, "threshold": 0.8, "judged": True,
    }  # fmt: skip


def _reviews(admin: User, mallory: User, group: Group) -> None:
    review, now = Review.objects.open().get(), timezone.now()
    Review.objects.filter(pk=review.pk).update(group=group, assignee=admin, rule=text(200))
    Claim.objects.create(review=review, reviewer=mallory, until=now + timedelta(hours=1))
    Presence.objects.create(review=review, reviewer=mallory, seen_at=now)
    Draft.objects.create(review=review, reviewer=admin, kind="edit", data={"a": EVERY, "reason": EVERY}, saved_at=now)
    for kind in ReviewEvent.Kind.values:
        by = None if kind in ("escalated", "reminded") else mallory
        ReviewEvent.objects.create(review=review, actor=by, kind=kind, about=text(200), note=EVERY)
    for kind in Notice.Kind.values:
        Notice.objects.create(user=admin, review=review, kind=kind)
    NoticeSettings.objects.create(user=admin, last_error=text(200))
    Channel.objects.create(name=text(80), url=EVERY, last_error=text(200))
    Route.objects.create(agent="guessing", cause="", group=group)
    SavedView.objects.create(owner=admin, name=text(60), group=group, query="text=x")


def _monitoring(admin: User, mallory: User) -> None:
    rule = AlertRule.objects.create(name=text(120), measure="queue", changed_by=mallory.username)
    evidence = [{"text": one, "url": "/runs/1/"} for one in ATTACKS[:50]]
    for subject, state in (("", "firing"), ("guessing", "acknowledged"), ("shop", "resolved")):
        ended = timezone.now() if state == "resolved" else None
        alert = Alert.objects.create(
            rule=rule,
            rule_version=1,
            subject=subject,
            state=state,
            title=text(300),
            evidence=evidence,
            owner=mallory,
            ended_at=ended,
        )
        for kind in AlertEvent.Kind.values:
            AlertEvent.objects.create(alert=alert, kind=kind, by=mallory.username, note=text(300))
    AlertChannel.objects.create(name=text(80), url=EVERY, last_error=text(200))
    shop, _ = Dependency.objects.get_or_create(name="shop")
    BreakerChange.objects.create(dependency=shop, old="closed", new="open", why=text(300), by=mallory.username)


def goes_on(run: Run) -> int:
    """While its page is open: what the socket brings is hostile too. The number of the last event."""
    with event_log.locked(run.pk) as log:
        said = {"decision": "reject", "reason": text(500), "value": None}
        log.append(Event(Kind.STEP_DECIDED, said, 1, actor=text(150)))
        log.append(Event(Kind.RUN_FAILED, {"error": {"kind": text(60), "message": EVERY, "trace": EVERY}}))
        return log.state.seq
