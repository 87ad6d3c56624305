"""What can go wrong with processes, queue and database: each fault once, as a generator that yields how long to let things be."""

import signal
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import django_rq
from django.db import connection

from agentops.chaos.fleet import Member, send
from runs import dispatch
from runs.models import Run

if TYPE_CHECKING:
    from agentops.chaos.trial import World

Injected = Iterator[float]
COPIES = 3
NOBODY_WRITES_SECONDS = 3.0  # a fault that waits for somebody at work waits no longer than this
GRACE_SECONDS = 30.0  # within which a process that is asked to stop has ended
REPLIES = 20  # swallowed in one go
KINDS_OF_WRITES = ("start", "step", "decision", "lease", "cancel", "retry", "park", "end")


@dataclass(frozen=True, slots=True)
class Fault:
    """So many `times`, with at least so many `runs`, in the quick and the full form, at random moments `every` so many seconds.

    On a slow machine the full form stops after `seconds`: the report says how often the fault did come.
    """

    name: str
    proof: str
    inject: Callable[["World"], Injected]
    times: tuple[int, int]
    every: tuple[float, float] = (0.2, 1.2)
    runs: tuple[int, int] = (4, 60)
    seconds: float = 30.0
    target: int = 0  # how often it is wanted
    limit_seconds: float = 15.0  # for the recovery of 95 of 100 runs
    through_proxy: bool = False  # whether everybody reaches the database only by way of the proxy
    errors_allowed: bool = False  # whether people may be told of an error, because the database was away
    alone: bool = False  # without errands beside it: it starts runs of its own

    def comes(self, form: int) -> int:
        """So many times. What the quick form leaves out comes once where the full form is late."""
        return self.times[form] or min(1, self.times[1])


def kill_9(world: "World") -> Injected:
    """Of a job process, of what it forked for its job, or of both; it is replaced at once."""
    victim = yield from somebody_at_work(world)
    children = victim.children()
    world.recovery.expect(owned_by([victim.pid, *children]))
    if not children or world.chance.random() < 0.4:
        victim.send(signal.SIGKILL)
    send(signal.SIGKILL, children)
    world.count(1)
    yield 0


def stop_in_order(world: "World") -> Injected:
    """SIGTERM, SIGINT or SIGQUIT, or five SIGTERMs in a row: what it carries goes on elsewhere, and it ends within its grace."""
    victim = yield from somebody_at_work(world)
    pid, begun = victim.pid, time.monotonic()
    world.recovery.expect(owned_by([pid, *victim.children()]))
    number, times = world.chance.choice(
        [(signal.SIGTERM, 1), (signal.SIGTERM, 1), (signal.SIGINT, 1), (signal.SIGQUIT, 1), (signal.SIGTERM, 5)]
    )
    for _ in range(times):
        victim.send(number)
        yield 0.01
    world.count(1)
    while victim.pid == pid:
        if time.monotonic() - begun > GRACE_SECONDS:
            world.broken.append(f"A job process that was asked to stop was still there after {GRACE_SECONDS:g} s.")
            victim.end()
        yield 0


def pause(world: "World") -> Injected:
    """SIGSTOP of most job processes for longer than the lease: another takes over, and then they wake up."""
    world.people.keep_busy()
    yield from somebody_at_work(world)
    working = [worker for worker in world.fleet.workers if owned_by([worker.pid, *worker.children()])] or world.fleet.workers
    most = max(1, len(world.fleet.workers) - 1)
    victims = world.chance.sample(working, min(most, len(working)))
    pids = [pid for victim in victims for pid in (victim.pid, *victim.children())]
    world.people.outcomes_are_certain = False
    send(signal.SIGSTOP, pids)
    world.stopped.update(pids)
    world.recovery.expect(owned_by(pids))
    world.count(len(victims))
    yield world.lease_seconds * world.chance.uniform(1.15, 1.4)
    send(signal.SIGCONT, pids)
    yield 0.6  # what it was about to do, it has done by now
    world.people.outcomes_are_certain = True


def flushall(world: "World") -> Injected:
    """Redis forgets everything."""
    django_rq.get_connection("default").flushall()
    world.recovery.expect(due(), on_the_queue=True)
    world.count(1)
    yield 0


def redis_falls(world: "World") -> Injected:
    """kill -9 of Redis, which comes back empty; meanwhile people go on starting and deciding."""
    world.redis.fall()
    yield world.chance.uniform(1.0, 3.0)
    world.redis.start()
    world.recovery.expect(due(), on_the_queue=True)
    world.count(1)
    yield 0


def redis_away(world: "World") -> Injected:
    """Redis is away for long: everything that people do is accepted, and goes on when it is back."""
    world.redis.fall()
    errors = world.people.errors
    end = time.monotonic() + (1.0 if world.quick else 20.0)
    while time.monotonic() < end:
        world.people.keep_busy()
        if Run.objects.filter(status="queued").count() < 60:
            world.people.wanted += 1
            world.people.at_once += 1
        yield 0.1
    world.redis.start()
    world.recovery.expect(due(), on_the_queue=True)
    world.count(1)
    if world.people.errors > errors:
        world.broken.append(f"{world.people.errors - errors} commands of people failed while Redis was away.")
    yield 0


def postgres_restart(world: "World") -> Injected:
    """PostgreSQL falls without a checkpoint, is away for up to two seconds, and recovers from its log."""
    world.postgres.fall()
    yield world.chance.uniform(0.0, 2.0)
    world.postgres.start()
    connection.close()
    world.recovery.expect(unfinished())
    world.count(1)
    yield 0


def lost_replies(world: "World") -> Injected:
    """The database commits, and who asked hears that the connection broke: twenty times, over every kind of write."""
    world.people.change_their_minds = True
    before = world.proxy.swallowed()
    wanted = 2 if world.quick else REPLIES
    end = time.monotonic() + NOBODY_WRITES_SECONDS
    while (done := (world.proxy.swallowed() - before).total()) < wanted and time.monotonic() < end:
        for kind in world.chance.sample(KINDS_OF_WRITES, 4):
            world.proxy.swallow(kind, 1 if world.quick else 3)
        world.people.keep_busy()
        yield 0
    for kind in KINDS_OF_WRITES:
        world.proxy.swallow(kind, 0)
    world.count(done)
    world.recovery.expect(unfinished())
    world.figures |= {f"replies of {kind}": number for kind, number in sorted(world.proxy.swallowed().items())}


def duplicate_delivery(world: "World") -> Injected:
    """Every run that is under way is put on the queue three times more."""
    queue, pids = django_rq.get_queue("default"), world.fleet.pids_of_workers()
    send(signal.SIGSTOP, pids)  # until many wait, and then all are taken at once
    yield 0.15
    for run_id, last_seq in unfinished():
        world.count(1)
        for copy in range(COPIES):
            job_id = f"copy-{run_id}-{last_seq}-{copy}-{time.monotonic_ns()}"
            queue.enqueue_call(dispatch.ADVANCE, args=(run_id,), job_id=job_id, result_ttl=0)
    send(signal.SIGCONT, pids)
    yield 0


MOST_LOOKS = 6  # for somebody who puts something on the queue; well within a lease


def lost_wake_ups(world: "World") -> Injected:
    """While job processes stand still people go on; then every job that waits disappears, as if it had never been enqueued."""
    pids = world.fleet.pids_of_workers()
    send(signal.SIGSTOP, pids)
    queue, looks = django_rq.get_queue("default"), 0
    while looks == 0 or (not len(queue) and looks < MOST_LOOKS):
        yield 0.2
        looks += 1
    world.count(len(queue))
    queue.empty()  # type: ignore[no-untyped-call]
    send(signal.SIGCONT, pids)
    world.recovery.expect(due(), on_the_queue=True)
    yield 0


def several_at_once(world: "World") -> Injected:
    """One of the others, then another before the first is over."""
    first, second = (chosen(world) for chosen in world.chance.sample([kill_9, flushall, lost_wake_ups, duplicate_delivery], 2))
    yield from first
    yield from second


FAULTS = [
    Fault("kill -9 of job processes", "R1", kill_9, times=(5, 200), every=(0.05, 0.3), runs=(6, 500), seconds=70, target=200),
    Fault("asked to stop", "R2", stop_in_order, times=(2, 20), every=(0.1, 0.3), seconds=20, target=12),
    Fault("SIGSTOP longer than the lease", "R3", pause, times=(1, 15), every=(0.1, 0.2), seconds=75, target=100),
    Fault("FLUSHALL", "R4", flushall, times=(3, 20), runs=(4, 200), seconds=20, limit_seconds=10, target=20),
    Fault(
        "kill -9 of Redis, which comes back empty",
        "R4",
        redis_falls,
        (0, 10),
        runs=(0, 200),
        seconds=25,
        limit_seconds=10,
        target=10,
    ),
    Fault("Redis away for long", "R5", redis_away, times=(1, 1), seconds=20, target=1),
    Fault(
        "PostgreSQL immediate restart", "R6", postgres_restart, (1, 40), runs=(4, 500), errors_allowed=True, seconds=45, target=80
    ),
    Fault("reply of COMMIT lost", "R7", lost_replies, (3, 50), every=(0, 0.1), through_proxy=True, seconds=60, target=1000),
    Fault("duplicate delivery", "R8", duplicate_delivery, (3, 100), every=(0.05, 0.2), runs=(4, 300), seconds=25, target=1000),
    Fault("lost wake-ups", "R9", lost_wake_ups, times=(2, 60), every=(0.1, 0.3), seconds=25, limit_seconds=10, target=500),
    Fault("several at once", "", several_at_once, times=(0, 40), seconds=20),
]


def somebody_at_work(world: "World") -> Generator[float, None, Member]:
    """A job process that owns a run, as soon as there is one; any where none comes by one."""
    end = time.monotonic() + NOBODY_WRITES_SECONDS
    while True:
        workers = world.chance.sample(world.fleet.workers, len(world.fleet.workers))
        for worker in workers:
            if worker.alive and owned_by([worker.pid, *worker.children()]):
                return worker
        if time.monotonic() > end:
            return workers[0]
        yield 0


# --- whom a fault hits: (run, events so far) --------------------------------------------------------------------------


def owned_by(pids: list[int]) -> list[tuple[int, int]]:
    """Runs whose lease is held by one of these processes; the name of an owner has the process id in it, between dashes."""
    held = Run.objects.filter(lease_until__isnull=False).values_list("pk", "last_seq", "lease_owner")
    return [(run_id, seq) for run_id, seq, owner in held if {str(pid) for pid in pids} & set(owner.split("-"))]


def due() -> list[tuple[int, int]]:
    """Runs that nobody owns and that somebody should advance now."""
    return list(Run.objects.due().values_list("pk", "last_seq"))


def unfinished() -> list[tuple[int, int]]:
    """Runs that are due or under way."""
    return list(Run.objects.filter(status__in=["queued", "running"]).values_list("pk", "last_seq"))
