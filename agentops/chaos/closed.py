"""What must be refused is refused, and waits for a person: addresses, acts without a record or a verdict, runs without an end."""

import selectors
import socket  # noqa: TID251 - a trap: whoever connects to it is counted
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, get_args

from django.db import Error as DatabaseError
from django.db import connection, transaction

from agentops import people as accounts
from agentops.chaos.faults import Fault, Injected
from agentops.chaos.guarded import NAME, PLAIN, start
from agentops.chaos.proof import counted, judge, until
from agentops.chaos.refusing import ACTED_ON, ALLOWED, Way
from reviews import decisions
from reviews.models import Review
from runs import commands, dependencies, event_log, waiting
from runs.children import MOST_DEEP
from runs.models import Run, Step
from runs.models.run import ENDED
from runs.reliability import terms

if TYPE_CHECKING:
    from agentops.chaos.trial import World

VISIT, ACT, ENDLESS = "chaos-visit", "chaos-act", "chaos-endless"
LIMITS = {"repeats": 4, "steps": 6, "seconds": 1, "calls": 3}
STILL_SECONDS = 1.0  # in which whoever would act has acted
HERE = (
    "127.0.0.1", "127.1", "2130706433", "0x7f000001", "017700000001", "0.0.0.0", "localhost", "[::1]", "[::]",  # noqa: S104
    "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "inside.example", "inside6.example", "mixed.example", "someone@127.0.0.1",
)  # fmt: skip
ELSEWHERE = (
    "169.254.169.254", "2852039166", "[fd00:ec2::254]", "10.0.0.1", "192.168.0.1", "172.16.0.1", "[fe80::1]",
    "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "100.64.0.1",
)  # fmt: skip
TURNS = 4


# --- a record, a policy, a verdict --------------------------------------------------------------------------------

NO_ROOM = f"""
CREATE FUNCTION chaos_no_room() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NEW.kind IN ('StepStarted', 'AttemptStarted') AND EXISTS (
    SELECT FROM runs_run WHERE id = NEW.run_id AND agent = '{ACT}') THEN
    RAISE EXCEPTION 'no space left on device' USING ERRCODE = 'disk_full'; END IF; RETURN NEW; END $$;
CREATE TRIGGER chaos_no_room BEFORE INSERT ON runs_event FOR EACH ROW EXECUTE FUNCTION chaos_no_room()
"""
ROOM = "DROP TRIGGER IF EXISTS chaos_no_room ON runs_event; DROP FUNCTION IF EXISTS chaos_no_room()"
AWAY, BACK = "ALTER TABLE runs_policy RENAME TO chaos_policy", "ALTER TABLE chaos_policy RENAME TO runs_policy"


def fail_closed(world: "World") -> Injected:
    """The log takes no start of a step; policies cannot be read; the classifier is away: nobody acts, and then all goes on."""
    count = 4 if world.quick else 12
    there = world.provider
    terms.of(NAME)  # with these terms, which every process has heard of when it matters
    dependencies.configure(NAME, by="chaos", **PLAIN | {"breaker_minimum_calls": 4, "breaker_open_seconds": 0.5})
    there.forget()
    _execute(NO_ROOM)
    unrecorded = start(world, ACT, count)
    yield STILL_SECONDS
    judge(world, not there.count(), f"{there.count()} calls were made of which nothing could be recorded")
    judge(world, not _ended(unrecorded), "a run ended whose steps could not be recorded")
    _execute(ROOM)
    yield from until(world, lambda: _ended(unrecorded))
    _execute(AWAY)
    begun = _began_without_policies(world)
    _execute(BACK)
    judge(world, not begun, f"{begun} runs began although no policy could be read")
    there.forget()
    there.fault("500")
    unjudged = start(world, ACT, count)
    said: dict[int, str] = {}
    yield from until(world, lambda: _have_said(unjudged, said))
    yield STILL_SECONDS
    acts = sum(ACTED_ON in visit.path for visit in there.visits())
    judge(world, not acts, f"{acts} acts took place without their verdict")
    judge(world, len(said) == count, f"{len(said)} of {count} runs said why they wait: {sorted(said.values())}")
    there.recover()
    yield from until(world, lambda: _ended(unrecorded + unjudged))
    done = [visit.key for visit in there.visits() if ACTED_ON in visit.path and not visit.fault]
    succeeded = Run.objects.filter(pk__in=unrecorded + unjudged, status="succeeded").count()
    world.count(2 * count + 1)
    world.figures |= {"acts without record or verdict": acts, "acts afterwards": len(done), "runs that went on": succeeded}
    judge(world, succeeded == 2 * count, f"{succeeded} of {2 * count} runs went on afterwards")
    judge(world, len(set(done)) == len(done) == count, f"{len(done)} acts took place, of {count}")


def _have_said(runs: list[int], said: dict[int, str]) -> bool:
    """Why they wait for what they call; between two tries they move."""
    found = waiting.answers(Run.objects.filter(pk__in=runs, status__in=("waiting", "retrying")))
    said |= {run_id: one.sentence for run_id, one in found.items()}
    return len(said) == len(runs)


def _began_without_policies(world: "World") -> int:
    """How many runs began that were asked for meanwhile."""
    before = Run.objects.filter(agent=ACT).count()
    try:
        with transaction.atomic():
            start(world, ACT, 1)
    except DatabaseError:
        connection.close()
    return Run.objects.filter(agent=ACT).count() - before


def _execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


# --- runs without an end ------------------------------------------------------------------------------------------


def endless(world: "World") -> Injected:
    """Runs that would go on for ever, in each way: they stop at their limit, and a person is asked."""
    world.people.leave_alone.add(ENDLESS)
    commands.configuration(ENDLESS)
    commands.configure(ENDLESS, by="chaos", **{f"run_{unit}": limit for unit, limit in LIMITS.items()})
    runs = {way: start(world, ENDLESS, 1, way=way)[0] for way in get_args(Way)}
    asked = Review.objects.open().filter(cause="budget")
    yield from until(world, lambda: asked.filter(run__in=_family(world)).count() == len(runs))
    asked = asked.filter(run__in=_family(world))
    for way, limit in LIMITS.items():
        done = Step.objects.filter(run=runs[way], status="succeeded").count()
        most = limit + 1 if way != "seconds" else NEVER_MORE
        world.figures[f"{way}: limit {limit}, steps"] = done
        judge(world, done <= most, f"{way}: {done} steps were done, and the limit is {limit}")
        units = [(one.proposal or {})["unit"] for one in asked.filter(run=runs[way])]
        judge(world, units == [way], f"{way}: people were asked about {units}")
    deepest = max(event_log.RunLog.load(one).state.depth for one in _family(world))
    world.figures["deepest run below another"] = deepest
    judge(world, deepest == MOST_DEEP, f"a run stands {deepest} below the first, and {MOST_DEEP} is the most")
    units = [(one.proposal or {})["unit"] for one in asked.exclude(run__in=runs.values())]
    judge(world, units == ["depth"], f"deep: people were asked about {units}")
    for review in list(asked):
        by = accounts.ensure_account("reviewer", "not used")
        decisions.decide(review.pk, actor=by, kind="finish", seen=review.fingerprint, reason="as in every trial")
    yield from until(world, lambda: _ended(list(runs.values())))
    ends = Counter(Run.objects.filter(pk__in=runs.values()).values_list("status", flat=True))
    judge(world, ends == {"failed": len(LIMITS), "succeeded": 1}, f"they ended otherwise than decided: {dict(ends)}")
    world.count(len(runs))


NEVER_MORE = 5  # steps of 0.3 s begin within a second


def _family(world: "World") -> list[int]:
    return list(Run.objects.filter(agent=ENDLESS, input__phase=world.people.phase).values_list("pk", flat=True))


def _ended(runs: list[int]) -> bool:
    return not Run.objects.filter(pk__in=runs).exclude(status__in=ENDED).exists()


# --- addresses ----------------------------------------------------------------------------------------------------


def private_addresses(world: "World") -> Injected:
    """Steps are told to call private addresses in every form, by way of a redirect, and by names that change their minds."""
    with _trap() as trap, _host() as host:
        bad = [f"http://{name}:{trap.port}/" for name in HERE] + [f"http://{name}/latest/meta-data" for name in ELSEWHERE]
        sent_on = bad if not world.quick else bad[:: len(bad) // 4]
        urls = bad + [f"{host.url}/?to={url}" for url in sent_on] + [f"http://turns.example:{trap.port}/"] * TURNS
        refused, allowed = _start_visits(world, urls), _start_visits(world, [f"{host.url}/"] * 4)
        yield from until(world, lambda: _ended(refused + allowed))
        went = dict(Run.objects.filter(pk__in=refused + allowed).values_list("pk", "status"))
        reached = [url for url, run_id in zip(urls, refused, strict=True) if went[run_id] != "partial"]
        world.count(len(urls))
        world.figures |= {"connections": trap.count, "redirects followed": host.asked - len(allowed), "ways refused": len(urls)}
        judge(world, not trap.count, f"{trap.count} connections were made to private addresses")
        judge(world, not reached, f"these were not refused: {', '.join(reached[:3])}")
        judge(world, all(went[run_id] == "succeeded" for run_id in allowed), "an address that is allowed was not called")
        judge(world, host.asked >= len(allowed) + len(sent_on), "the host that sends on was not asked each time")
        judge(world, trap.catches(), "the trap counts nobody")


def _start_visits(world: "World", urls: list[str]) -> list[int]:
    return [run_id for url in urls for run_id in start(world, VISIT, 1, url=url)]


class _Trap:
    """Listens on one port of this machine, IPv4 and IPv6, and counts who connects."""

    def __init__(self) -> None:
        self.count, self._listeners, self._looks = 0, [socket.create_server(("127.0.0.1", 0))], selectors.DefaultSelector()
        self.port = self._listeners[0].getsockname()[1]
        if socket.has_ipv6:
            with suppress(OSError):  # this machine has none
                self._listeners.append(socket.create_server(("::1", self.port), family=socket.AF_INET6))
        for listener in self._listeners:
            self._looks.register(listener, selectors.EVENT_READ)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            for key, _ in self._looks.select():
                try:
                    caught = key.fileobj.accept()[0]  # type: ignore[union-attr]
                except OSError:  # closed
                    return
                self.count += 1
                caught.close()

    def catches(self) -> bool:
        """Whether it would have noticed."""
        before = self.count
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as made:
            return made.recv(1) == b"" and self.count > before

    def close(self) -> None:
        for listener in self._listeners:
            listener.close()


@contextmanager
def _trap() -> Iterator[_Trap]:
    trap = _Trap()
    try:
        yield trap
    finally:
        trap.close()


class _Host(ThreadingHTTPServer):
    """At the address that is allowed; sends on to whatever it is asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__((ALLOWED, 0), _SendsOn)
        self.asked = 0
        self.url = f"http://hooks.example:{self.server_port}"


class _SendsOn(BaseHTTPRequestHandler):
    server: _Host

    def do_GET(self) -> None:
        self.server.asked += 1
        target = self.path.partition("?to=")[2]
        self.send_response(302 if target else 200)
        self.send_header("Location", target)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None: ...


@contextmanager
def _host() -> Iterator[_Host]:
    with _Host() as host:
        threading.Thread(target=host.serve_forever, args=(0.05,), daemon=True).start()
        yield host
        host.shutdown()


CLOSED = [
    Fault(name, proof, counted(inject), times=(1, 1), runs=(0, 0), every=(0, 0), alone=True, target=target)
    for name, proof, inject, target in (
        ("private addresses", "S9", private_addresses, 50),
        ("no record, no policy, no verdict", "S10", fail_closed, 25),
        ("runs without an end", "S19", endless, 5),
    )
]
