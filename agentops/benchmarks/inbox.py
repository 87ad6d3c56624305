"""What the inbox costs when it is full: pages and decisions at the server, and how soon others see what one person decided."""

import asyncio
import json
import random
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from websockets.asyncio.client import connect

from agentops.benchmarks import crowd, processes
from agentops.benchmarks.engine import server
from agentops.benchmarks.figures import Taken, spread, summary
from agentops.visitor import Visitor
from reviews.models import Review

LISTS = ("/reviews/", "/reviews/?cause=gated", "/reviews/?agent=refunds&text=77", "/reviews/?after={after}")
WARM_UP = 3
NEXT = "/reviews/next/"
MOST_DECIDED = 2_000  # in all rounds
LATEST_SECONDS = 30.0  # for what is on its way to a screen
SOONEST_SECONDS, BETWEEN_SECONDS = 0.06, 0.25  # in which a page collects what messages only name


@dataclass(frozen=True, slots=True)
class Form:
    """How full it is, and how much is measured."""

    rounds: int = 5
    waiting: int = 10_000
    decided: int = 200_000
    samples: int = 40
    reviewers: int = crowd.REVIEWERS
    seconds: float = 60.0  # for which they work
    pace_seconds: float = 30.0  # from one decision of a reviewer to their next: a thousand in a working day
    hurried_seconds: float = 30.0  # for which they work six times as fast


QUICK = Form(1, waiting=120, decided=400, samples=3, reviewers=3, seconds=2.0, pace_seconds=0.7, hurried_seconds=0.0)
HURRY = 6
BARE = "a signed-in request of the same server that asks one question: how many reviews are open"


@dataclass
class Inbox:
    """The full inbox, and who is at it."""

    form: Form
    port: int
    users: list[User]
    to_decide: Iterator[Review]
    visitor: Visitor = field(init=False)

    def __post_init__(self) -> None:
        self.visitor = Visitor(self.port, self.users[0])


def measure(form: Form, *, only: list[str], say: Callable[[str], None]) -> dict[str, Any]:
    """Every figure with its median, least and most over the rounds."""
    say(f"making {form.waiting:,} reviews that wait and {form.decided:,} that are decided")
    about = server()
    users = crowd.make(waiting=form.waiting, decided=form.decided)[: form.reviewers]
    taken = dict[str, list[float]]()
    with processes.web() as port:
        inbox = Inbox(form, port, users, _to_decide())
        for number in range(form.rounds):
            for name, take in MEASURES.items():
                if only and name not in only:
                    continue
                say(f"round {number + 1} of {form.rounds}: {name}")
                for figure, value in take(inbox).items():
                    taken.setdefault(figure, []).append(value)
    return {"limit": BARE, "server": about, "rounds": form.rounds, "form": str(form), "figures": summary(taken)}


def _to_decide() -> Iterator[Review]:
    """Those whose run can go on, and that need no more than a click: the last in turn, so that nobody else has them."""
    found = Review.objects.open().filter(agent="bench-gate", cause="gated", risk=1).order_by("-opened_at", "-pk")
    return iter(list(found[:MOST_DECIDED]))  # of a list, because several threads take from it


# --- one person ---------------------------------------------------------------------------------------------------


def _list(inbox: Inbox) -> Taken:
    """Every form of the list as often, beside a request that does next to nothing."""
    after = list(Review.objects.open().in_turn().values_list("pk", flat=True)[:50])[-1]
    paths = [path.format(after=after) for path in LISTS]
    bare = [_milliseconds(inbox.visitor, "/reviews/count/") for _ in range(WARM_UP + inbox.form.samples)][WARM_UP:]
    took = [_milliseconds(inbox.visitor, path) for _ in range(inbox.form.samples) for path in paths][WARM_UP:]
    taken = spread("list_ms", took) | spread("bare_ms", bare) | {"list_queries": float(max(map(_queries, paths)))}
    return taken | {"list_ratio": taken["list_ms_p50"] / taken["bare_ms_p50"]}


def _next(inbox: Inbox) -> Taken:
    """Taken for this person alone, and its page."""
    took = []
    for _ in range(inbox.form.samples):
        begun = time.perf_counter()
        found = inbox.visitor.post(NEXT)
        _expect(inbox.visitor.get(found.location), 200)
        took.append((time.perf_counter() - begun) * 1000)
    return spread("next_ms", took)


def _decide(inbox: Inbox) -> Taken:
    """What the click on Approve takes until the server has recorded it and says where to go on."""
    took = []
    for _ in range(inbox.form.samples):
        review = next(inbox.to_decide)
        begun = time.perf_counter()
        _approve(inbox.visitor, review)
        took.append((time.perf_counter() - begun) * 1000)
    return spread("decide_ms", took)


def _milliseconds(visitor: Visitor, path: str) -> float:
    begun = time.perf_counter()
    _expect(visitor.get(path), 200)
    return (time.perf_counter() - begun) * 1000


def _approve(visitor: Visitor, review: Review) -> None:
    _expect(visitor.post(f"/reviews/{review.pk}/decision/", decision="approve", seen=review.fingerprint), 302)


def _take(visitor: Visitor, review: Review) -> None:
    """It is claimed, its page is opened, which says who has it open."""
    _expect(visitor.post(f"/reviews/{review.pk}/claim/"), 302)
    _expect(visitor.get(f"/reviews/{review.pk}/"), 200)
    _expect(visitor.post(f"/reviews/{review.pk}/here/"), 200)


def _expect(answer: Any, status: int) -> None:
    if answer.status != status:
        raise RuntimeError(f"the server answered {answer.status}, not {status}: {answer.body[:2000]}")


def _queries(path: str) -> int:
    client = Client(HTTP_HOST="localhost")
    client.force_login(User.objects.get(username="reviewer1"))
    with CaptureQueriesContext(connection) as asked:
        client.get(path)
    return len(asked)


# --- many at work -------------------------------------------------------------------------------------------------


def _screens(inbox: Inbox) -> Taken:
    """Each reviewer takes a review, opens it and decides it, at their pace, and has the list open beside it."""
    return _at_work(inbox, "screen")


def _hurried(inbox: Inbox) -> Taken:
    """The same much faster than people work: where it ends."""
    form = replace(inbox.form, seconds=inbox.form.hurried_seconds, pace_seconds=inbox.form.pace_seconds / HURRY)
    return _at_work(replace(inbox, form=form), "hurried") if form.seconds else {}


def _at_work(inbox: Inbox, name: str) -> Taken:
    seen: list[float] = []
    decided: dict[int, Click] = {}
    asyncio.run(_work(inbox, decided, seen))
    expected = len(decided) * (len(inbox.users) - 1)
    if len(seen) < expected:
        raise RuntimeError(f"of {expected} screens that should have shown what others decided, {len(seen)} have")
    taken = {f"{name}_decisions": float(len(decided)), f"{name}_pace_seconds": inbox.form.pace_seconds}
    return spread(f"{name}_ms", seen) | taken


class Click(NamedTuple):
    """When somebody decided, and who: what the decision itself takes is in the figure."""

    at: float
    by: User


async def _work(inbox: Inbox, decided: dict[int, Click], seen: list[float]) -> None:
    threads = ThreadPoolExecutor(2 * len(inbox.users))  # a click must not wait here for somebody else's answer
    asyncio.get_running_loop().set_default_executor(threads)
    visitors = await asyncio.to_thread(lambda: [Visitor(inbox.port, user) for user in inbox.users])
    screens = [Screen(visitor, decided, seen) for visitor in visitors]
    watching = [asyncio.create_task(screen.watch()) for screen in screens]
    await asyncio.gather(*(asyncio.wait_for(screen.opened.wait(), processes.PATIENCE_SECONDS) for screen in screens))
    await asyncio.gather(*(_decide_at_pace(inbox, user, decided) for user in inbox.users))
    end = time.monotonic() + LATEST_SECONDS
    while len(seen) < len(decided) * (len(visitors) - 1) and time.monotonic() < end:
        await asyncio.sleep(0.1)
    await _ended(watching)


async def _ended(watching: "list[asyncio.Task[None]]") -> None:
    """They are closed. Raises what ended one of them before."""
    for task in watching:
        task.cancel()
    for ended in await asyncio.gather(*watching, return_exceptions=True):
        if isinstance(ended, Exception):
            raise ended


async def _decide_at_pace(inbox: Inbox, user: User, decided: dict[int, Click]) -> None:
    visitor = await asyncio.to_thread(Visitor, inbox.port, user)
    end = time.monotonic() + inbox.form.seconds
    await asyncio.sleep(random.uniform(0, inbox.form.pace_seconds))  # noqa: S311 - so that they are not in step
    while time.monotonic() < end:
        review = await asyncio.to_thread(next, inbox.to_decide)
        await asyncio.to_thread(_take, visitor, review)
        page = asyncio.create_task(Screen(visitor, decided, [], selected=review.pk).watch())
        await asyncio.sleep(inbox.form.pace_seconds / 2)
        decided[review.pk] = Click(time.perf_counter(), user)
        await asyncio.to_thread(_approve, visitor, review)
        await _ended([page])
        await asyncio.sleep(inbox.form.pace_seconds / 2)


class Screen:
    """A page that is open, as static/js/inbox-list.js keeps it: all rows are asked for once, then the socket brings them."""

    def __init__(self, visitor: Visitor, decided: dict[int, Click], seen: list[float], *, selected: int | None = None) -> None:
        self.visitor, self.decided, self.seen = visitor, decided, seen
        self.opened = asyncio.Event()
        self._path = "/ws/inbox/?after=0&" + (f"selected={selected}" if selected else "")
        self._shown, self._wanted = set[int](), set[str]()
        self._asking: asyncio.Task[None] | None = None
        self._asked = 0.0

    async def watch(self) -> None:
        path = f"ws://127.0.0.1:{self.visitor.port}{self._path}"
        async with connect(path, additional_headers=self.visitor.headers) as page, asyncio.TaskGroup() as self._tasks:
            self._tasks.create_task(self._get("/reviews/rows/?whole=1"))
            self.opened.set()
            async for message in page:
                told = json.loads(message)
                if changed := told.get("changed"):  # else it is a beat, or how many there are
                    self._changed(changed, has_rows="rows" in told)

    def _changed(self, changed: dict[str, str], *, has_rows: bool) -> None:
        ended = {review for review, what in changed.items() if what in Review.State.values}
        self._show(ended)
        self._wanted |= set() if has_rows else changed.keys() - ended
        if self._wanted and (self._asking is None or self._asking.done()):
            self._asking = self._tasks.create_task(self._ask())

    def _show(self, named: Iterable[str]) -> None:
        now = time.perf_counter()
        fresh = set(map(int, named)) & self.decided.keys() - self._shown
        clicks = [self.decided[review] for review in fresh]
        self.seen.extend((now - click.at) * 1000 for click in clicks if click.by != self.visitor.user)
        self._shown |= fresh

    async def _ask(self) -> None:
        while self._wanted:
            await asyncio.sleep(max(SOONEST_SECONDS, BETWEEN_SECONDS - (time.perf_counter() - self._asked)))
            named, self._wanted, self._asked = self._wanted, set(), time.perf_counter()
            await self._get(f"/reviews/rows/?ids={','.join(named)}")

    async def _get(self, path: str) -> None:
        _expect(await asyncio.to_thread(self.visitor.get, path), 200)


MEASURES: dict[str, Callable[[Inbox], Taken]] = {
    "list": _list, "next": _next, "decide": _decide, "screens": _screens, "hurried": _hurried,
}  # fmt: skip
