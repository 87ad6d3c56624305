"""Payloads: whoever may not see them finds them nowhere; and those of one run can be revealed, which is on record."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.contrib import admin
from django.contrib.auth.models import Group, Permission, User
from django.db import DatabaseError, transaction
from django.http import QueryDict
from django.test import Client, RequestFactory
from django.urls import reverse
from django.utils.timezone import now
from pydantic import BaseModel
from pydantic_ai.messages import ModelRequest, ModelResponse, ToolCallPart, UserPromptPart

from reviews import decisions, digest, groups
from reviews.eligibility import HIDDEN_FROM_YOU
from reviews.filters import Filters
from reviews.models import BulkDecision, Decision, Draft, Notice, NoticeSettings, Review, ReviewEvent
from runs import access, commands, live, sdk
from runs.integrations import conversation
from runs.models import Alert, AlertEvent, AlertRule, BulkAction, Hold, Reveal, Run, content, reveal
from runs.models.content import Content
from runs.models.event import Payload
from runs.models.search import fill
from tests.test_access import TABLE, arguments
from tests.test_executor import advanced, started
from tests.test_live import socket

pytestmark = pytest.mark.django_db
CANARY = "canary-4111-1111"
LOOKED_FOR = "canary-41"  # a page may say what was looked for


class Told(BaseModel):
    text: str = ""
    number: int = 0


ASKED = [ModelRequest([UserPromptPart(CANARY)], instructions=CANARY), ModelResponse([ToolCallPart("look_up", {"it": CANARY})])]


@sdk.worker
def betray(text: str) -> sdk.Result[Told]:
    conversation.record("openai:gpt", ASKED, tokens=(12, 3), cost=None)
    return sdk.Result(Told(text=CANARY), 0.1 if "unsure" in text else 0.9, CANARY, CANARY, {CANARY: 0.05})


@sdk.worker
def lose(text: str) -> str:
    raise sdk.GiveUp(CANARY)


@sdk.worker
def blow_up(text: str) -> str:
    return text * 8_000


@sdk.agent("betraying", title="Betraying", version="1")
def betraying(run: sdk.Run, given: Told) -> Told:
    """Tells what it was told, in every way there is."""
    found = run.step(f"betray {CANARY}", betray, text=given.text)
    if given.number == 1:
        run.step("ask", sdk.ask_human(Told, title=CANARY, draft=Told(text=CANARY)), question=CANARY)
    if given.number == 2:
        run.step("lose", lose, text=CANARY)
    if given.number == 3:
        run.step("blow up", blow_up, text=CANARY)
    if given.number == 4:
        run.join(run.spawn("child", "betraying", Told(text=CANARY, number=1)))
        run.step("ask", sdk.ask_human(Told, title=CANARY, draft=Told(text=CANARY)), question=CANARY)
    return found


class World:
    """Runs that tell the canary in every field that an agent, a tool or a person can fill."""

    def __init__(self, people: dict[str, User]) -> None:
        self.person = User.objects.create(username="auditor", is_staff=True, email="auditor@example.com")
        self.group = Group.objects.create(name="Auditors")
        self.person.groups.add(self.group)
        wanted = {name.partition(".")[2] for names in access.GROUPS.values() for name in names} | {"reveal_payload"}
        self.group.permissions.set(Permission.objects.filter(codename__in=wanted - {"view_payload"}))
        self.runs = {name: advanced(started("betraying", number, text)) for name, (number, text) in RUNS.items()}
        self.reviews = {name: Review.objects.get(run=run) for name, run in self.runs.items() if run.status == "waiting"}
        admin, value = people["admin"], {"text": f"{CANARY}!", "number": 0}
        self._decide("edited", admin, "edit", value=value, reason=CANARY)
        self._decide("failed", admin, "reject", reason=CANARY)
        commands.cancel(self.runs["cancelled"].pk, by="admin", reason=CANARY)
        parent = advanced(started("betraying", 4, CANARY))
        child = Run.objects.get(parent=parent)
        commands.cancel(child.pk, by="admin", reason=CANARY)
        self.runs |= {"parent": advanced(parent), "child": child}
        fill()
        asking = self.reviews["asking"]
        ReviewEvent.objects.create(review=asking, actor=admin, kind="taken_over", note=CANARY)
        Draft.objects.create(review=asking, reviewer=self.person, kind="answer", data={"text": CANARY}, saved_at=now())
        Notice.objects.create(user=self.person, review=asking, kind="new")
        told = {"actor": admin, "reason": CANARY, "begun_at": now(), "previewed_at": now()}
        self.bulk = BulkDecision.objects.create(kind="approve", **told)
        self.bulk.items.create(review=asking, seen="", outcome="refused", said=CANARY)
        self.action = BulkAction.objects.create(kind="cancel", **told)
        self.action.items.create(run=asking.run_id, outcome="refused", said=CANARY)
        Hold.objects.create(run_id=asking.run_id, by="admin", reason=CANARY)
        Reveal.objects.create(run_id=asking.run_id, by="somebody", reason=CANARY)
        rule = AlertRule.objects.create(name="Failures", measure="failure_rate")
        evidence = [{"text": f"Run 1: {CANARY}", "url": "/runs/1/"}]
        self.alert = Alert.objects.create(rule=rule, rule_version=1, title="Many fail", evidence=evidence)
        AlertEvent.objects.create(alert=self.alert, kind="acknowledged", by="admin", note=CANARY)

    def _decide(self, name: str, by: User, kind: str, **more: Any) -> None:
        review = self.reviews[name]
        decisions.decide(review.pk, actor=by, kind=kind, seen=review.fingerprint, **more)
        self.runs[name] = advanced(self.runs[name])

    def client(self, *, sees: bool = False) -> Client:
        permission = Permission.objects.get(codename="view_payload")
        (self.group.permissions.add if sees else self.group.permissions.remove)(permission)
        client = Client()
        client.force_login(self.person)
        return client

    def addresses(self) -> Iterator[str]:
        """Where content is, or might be: for every run and review, and for every list, filtered and not, and as a file."""
        for name, run in self.runs.items():
            page = run.get_absolute_url()
            if name not in ("asking", "edited", "failed", "large"):
                yield page
                continue
            queries = ("?open=all", "?step=1", "?until=now", "?until=3", "?step=1&until=now", f"?find={LOOKED_FOR}")
            yield from (f"{page}{query}" for query in queries)
            yield from (f"{page}events/{query}" for query in ("", "?format=json", "?step=1&format=json"))
            names = ("state", "waiting", "result", "related", "bars", f"step-{run.step_count}", "event-3")
            yield from (f"{page}parts/{name}/" for name in names)
            yield f"{page}compare/{self.runs['asking'].pk}/"
            yield f"{page}steps/1/fork/"
            yield f"/admin/runs/run/{run.pk}/change/"
            for step in run.steps.all():
                yield f"/admin/runs/step/{step.pk}/change/"
            for hash_ in Payload.objects.filter(run=run).values_list("hash", flat=True):
                yield f"{page}payloads/{hash_}/"
        for review in self.reviews.values():
            page = review.get_absolute_url()
            yield from (f"{page}{part}" for part in ("", "steps/", "news/", "take-over/", "reassign/", "snooze/"))
        lists = ("/runs/", "/runs/export.csv", "/runs/export.json", "/reviews/", "/reviews/list/", "/reviews/history/")
        lists += ("/reviews/export.csv", "/reviews/export.json", "/reviews/history/export.csv", "/reviews/history/export.json")
        for path in lists:
            yield from (f"{path}{query}" for query in ("?state=any", f"?text={LOOKED_FOR}", f"?step={LOOKED_FOR}"))
        ids = ",".join(str(review.pk) for review in self.reviews.values())
        yield from (f"/reviews/rows/?ids={ids}{more}" for more in ("", "&whole=1&counts=1"))
        yield from (f"/reviews/history/?decision={one}" for one in Decision.objects.values_list("pk", flat=True))
        yield from (self.bulk.get_absolute_url(), self.action.get_absolute_url(), self.alert.get_absolute_url())
        yield from ("/", "/agents/betraying/", "/agents/betraying/start/", "/notices/", "/operations/", "/alerts/")
        yield from (f"/admin/runs/{model}/" for model in ("run", "step", "reveal", "budget"))
        yield f"/admin/runs/run/?q={LOOKED_FOR}"
        yield f"/admin/runs/reveal/{Reveal.objects.earliest('pk').pk}/change/"


RUNS = {
    "ended": (0, CANARY), "asking": (1, CANARY), "failing": (2, CANARY), "large": (3, CANARY), "unsure": (0, f"{CANARY} unsure"),
    "edited": (0, f"{CANARY} unsure"), "failed": (2, CANARY), "cancelled": (1, CANARY),
}  # fmt: skip


@pytest.fixture
def world(people: dict[str, User]) -> World:
    return World(people)


def asked(client: Client, path: str, sent: dict[str, str] | None = None) -> tuple[int, str]:
    """Status, and all that is answered: the headers too. What it changes is undone."""
    with transaction.atomic():
        answer = client.get(path) if sent is None else client.post(path, sent)
        transaction.set_rollback(True)
    body = b"".join(answer) if answer.streaming else answer.content
    return answer.status_code, f"{answer.headers}\n{body.decode()}"


def test_no_address_tells_a_payload_to_whoever_may_not_see_it(world: World) -> None:
    client, paths, told = world.client(), list(dict.fromkeys(world.addresses())), set[str]()
    client.raise_request_exception = False
    answers = {path: asked(client, path) for path in paths}
    assert [path for path, (_, said) in answers.items() if CANARY in said] == []
    assert [path for path, (status, _) in answers.items() if status not in (200, 302, 403)] == []
    assert "rejected: payload is hidden" in asked(client, "/runs/?status=failed")[1], "of an error its kind is told"
    client = world.client(sees=True)
    for path in paths:
        status, said = asked(client, path)
        assert status in (200, 302), path
        told |= {path} if CANARY in said else set()
    assert len(told) > len(paths) / 2, sorted(set(paths) - told)
    where = " ".join(told)
    for part in ("/events/", "until=3", "format=json", "/parts/", "/compare/", "/fork/", "/payloads/", "/admin/", ".csv", ".json",
                 "/news/", "/steps/", "/rows/", "/history/?decision", "/bulk/", "/alerts/", "find="):  # fmt: skip
        assert part in where, part


def test_no_list_of_the_admin_site_tells_it_by_which_rows_it_has(people: dict[str, User], rf: RequestFactory) -> None:
    run, judged = started("betraying", 0, CANARY), 0
    request = rf.get("/admin/", {"o": ".".join(map(str, range(1, 12)))})
    request.user = User.objects.create(username="root", is_staff=True, is_superuser=True)
    for model, site in admin.site._registry.items():
        for name in [one.name for one in model._meta.fields if isinstance(one, Content)]:
            for hide in (True, False):
                with content.hidden(hide):
                    lookups = (name, f"{name}__startswith", f"{name}__text__startswith")
                    assert [site.lookup_allowed(lookup, "a", request) for lookup in lookups] == [not hide] * 3
                    turn = [one.lstrip("-") for one in site.get_changelist_instance(request).queryset.query.order_by]
                    sorts = [*turn, *site.get_sortable_by(request)]
                    assert (name in sorts) == (not hide and name in site.list_display), name
                    assert not hide or name not in "".join(site.get_search_fields(request))
                    judged += 1
    assert judged > 20
    auditor = User.objects.create(username="auditor", is_staff=True)
    auditor.user_permissions.set(Permission.objects.filter(codename="view_run"))
    client = Client()
    client.force_login(auditor)
    assert [client.get(f"/admin/runs/run/?{query}").status_code for query in ("input_text__startswith=c", "status=queued")] == [
        400,
        200,
    ]
    found = [client.get(f"/admin/runs/run/?q={text}").context["cl"].result_count for text in (LOOKED_FOR, "another")]
    assert found == [1, 1], run


def test_a_policy_is_tried_on_nothing_that_is_hidden(world: World) -> None:
    sent = {"agent": "betraying", "when": "always", "enabled": "on", "subject": "output", "approvals": "1"}
    sent |= {"default": "expire", "sample_share": "0", "_preview": "1"}
    for sees in (False, True):
        status, said = asked(world.client(sees=sees), "/admin/runs/policy/add/", sent)
        assert (status, "It would have sent" in said, 'id="content-hidden"' in said) == (200, sees, not sees)


def test_nothing_that_is_sent_is_answered_with_it(world: World) -> None:
    client, run, review = world.client(), world.runs["asking"], world.reviews["asking"]
    client.raise_request_exception = False
    sent = {"decision": "answer", "seen": review.fingerprint, "review": str(review.pk), "run": str(run.pk), "kind": "cancel"}
    for name in TABLE.keys() - {"favicon", "account_logout", "account_login"}:
        with transaction.atomic():  # also the rows that some of them need
            status, said = asked(client, reverse(name, args=arguments(name, run)), sent | {"all": "yes"})
            transaction.set_rollback(True)
        assert status < 500, name
        assert CANARY not in said, name


def test_who_sees_nothing_decides_nothing_and_is_not_asked(world: World) -> None:
    client, review, person = world.client(), world.reviews["asking"], world.person
    sent = {"decision": "reject", "seen": review.fingerprint, "reason": "no"}
    status, said = asked(client, f"{review.get_absolute_url()}decision/", sent)
    assert (status, HIDDEN_FROM_YOU in said) == (403, True)
    with pytest.raises(decisions.NotYours, match="hidden from you"):
        decisions.decide(review.pk, actor=person, kind="reject", seen=review.fingerprint, reason="no")
    assert person not in groups.deciders()
    assert not groups.asked(Review.objects.all(), person).exists()
    told = list(Notice.objects.filter(user=person).select_related("review"))
    assert CANARY not in digest.subject(told) + digest.text(told, NoticeSettings(user=person))


def test_one_run_is_revealed_with_a_reason_and_for_a_while(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    client, review, run = world.client(), world.reviews["asking"], world.runs["asking"]
    page, others = run.get_absolute_url(), [world.runs["edited"].get_absolute_url(), "/runs/", "/reviews/", "/reviews/export.csv"]
    assert client.get(f"{page}reveal/").status_code == 302
    client.post(f"{page}reveal/", {"reason": " "})
    assert CANARY not in client.get(page).text, "neither opening it nor saying no reason reveals anything"
    answer = client.post(f"{page}reveal/", {"reason": "a complaint", "back": review.get_absolute_url()})
    assert answer["Location"] == review.get_absolute_url()
    assert list(Reveal.objects.filter(by="auditor").values_list("run", "reason")) == [(run.pk, "a complaint")]
    for path in (page, f"{page}events/?format=json", review.get_absolute_url()):
        assert CANARY in asked(client, path)[1], path
    assert "<q>a complaint</q>" in client.get(page).text
    asking = Review.objects.exclude(pk=review.pk).values_list("run", flat=True)
    Run.objects.filter(pk__in=asking).update(input_text="another-canary")
    Review.objects.exclude(pk=review.pk).update(why="another-canary", proposal={"text": "another-canary"}, worker=review.worker)
    assert "another-canary" not in client.get(f"{review.get_absolute_url()}?state=any").text, "what stands beside it stays hidden"
    for query in (f"state=any&text={LOOKED_FOR}", f"state=any&step={LOOKED_FOR}"):
        assert 'data-count="all">0<' in client.get(f"{review.get_absolute_url()}?{query}").text, "a count would tell it"
        assert Filters.read(QueryDict(query), world.person).next(review) is None, "and so would what comes next"
    assert [path for path in (*others, f"{page}compare/{world.runs['edited'].pk}/") if CANARY in asked(client, path)[1]] == []
    decisions.decide(review.pk, actor=User.objects.get(pk=world.person.pk), kind="reject", seen=review.fingerprint, reason="seen")
    assert run.pk in access.revealed(User.objects.get(pk=world.person.pk))
    User.objects.filter(pk=world.person.pk).update(username="gone")
    another = User.objects.create(username="auditor")
    another.groups.add(world.group)
    assert access.revealed(another) == {}, "whoever has the name now has not given the reason"
    another.delete()
    User.objects.filter(pk=world.person.pk).update(username="auditor")
    monkeypatch.setattr(reveal, "GOOD_FOR", timedelta(0))
    assert CANARY not in client.get(page).text, "it has ended"
    with pytest.raises(DatabaseError, match="Cannot update or delete"), transaction.atomic():
        Reveal.objects.update(reason="")
    client.force_login(User.objects.get(username="reviewer"))
    assert client.post(f"{page}reveal/", {"reason": "curious"}).status_code == 403
    assert Reveal.objects.filter(by="reviewer").count() == 0


@pytest.mark.django_db(transaction=True)
def test_no_socket_tells_it_to_whoever_may_not_see_it(people: dict[str, User]) -> None:
    world = World(people)
    run, review = world.runs["asking"], world.reviews["asking"]
    for sees in (False, True):
        world.client(sees=sees)
        told = async_to_sync(heard)(f"/ws/runs/{run.pk}/", world.person, f'"seq": {run.last_seq}')
        told_of_reviews = async_to_sync(heard)("/ws/inbox/", world.person, "data-row", review)
        assert [CANARY in said for said in (told, told_of_reviews)] == [sees, sees]


async def heard(path: str, person: User, until: str, changed: Review | None = None) -> str:
    """What the socket says up to that word: of a run what its page lacks, of an inbox the review that changed."""
    there, said = await socket(path, person), ""
    accepted, _ = await there.connect(timeout=10)
    assert accepted
    if changed:
        await sync_to_async(live.send)(live.INBOX, {"type": "changed", "reviews": {str(changed.pk): ""}}, about="reviews")
    async with asyncio.timeout(30):
        while until not in said:
            said += (await there.receive_output(timeout=30))["text"]
    await there.disconnect()
    return said
