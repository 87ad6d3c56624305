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


@dataclass(frozen=True, slots=True)
class Fault:
    """`times` in the quick and in the full form, at random moments `every` so many seconds."""

    name: str
    inject: Callable[["World"], Injected]
    quick_times: int
    times: int
    every: tuple[float, float] = (0.2, 1.2)
    limit_seconds: float = 15.0  # for the recovery of 95 of 100 runs
    through_proxy: bool = False  # whether job processes reach the database only by way of the proxy


def kill_9(world: "World") -> Injected:
    """Of a job process, of what it forked for its job, or of both; it is replaced at once."""
    victim = yield from somebody_at_work(world)
    horses = victim.horses()
    pids = world.chance.choice([*[horses] * 5, *[[*horses, victim.pid]] * 3, *[[victim.pid]] * 2])
    send(signal.SIGKILL, pids)
    if set(horses) & set(pids):  # without its parent a horse goes on to the end of its job
        world.recovery.expect(owned_by([victim.pid, *horses]))
    yield 0


def pause(world: "World") -> Injected:
    """SIGSTOP for longer than the lease: another takes over, and then the first one wakes up."""
    victim = yield from somebody_at_work(world)
    pids = [victim.pid, *victim.horses()]
    world.people.outcomes_are_certain = False
    send(signal.SIGSTOP, pids)
    world.recovery.expect(owned_by(pids))
    yield world.lease_seconds * world.chance.uniform(1.5, 2.0)
    send(signal.SIGCONT, pids)
    yield 1.0  # what it was about to do, it has done by now
    world.people.outcomes_are_certain = True


def flushall(world: "World") -> Injected:
    """Redis forgets everything."""
    django_rq.get_connection("default").flushall()
    world.recovery.expect(due(), on_the_queue=True)
    yield 0


def redis_down(world: "World") -> Injected:
    """Redis ends and comes back empty; meanwhile people go on starting and deciding."""
    world.redis.stop()
    yield world.chance.uniform(2.0, 4.0)
    world.redis.start()
    world.recovery.expect(due(), on_the_queue=True)
    yield 0


def postgres_restart(world: "World") -> Injected:
    """PostgreSQL falls without a checkpoint, is away for up to two seconds, and recovers from its log."""
    world.postgres.fall()
    yield world.chance.uniform(0.0, 2.0)
    world.postgres.start()
    connection.close()
    world.recovery.expect(unfinished())
    yield 0


def lost_reply(world: "World") -> Injected:
    """The database commits, and the job process hears that its connection broke."""
    before, end = world.proxy.swallowed(), time.monotonic() + NOBODY_WRITES_SECONDS
    world.proxy.swallow_one()
    while world.proxy.swallowed() == before and time.monotonic() < end:
        yield 0
    world.recovery.expect(unfinished())


def duplicate_delivery(world: "World") -> Injected:
    """Every run that is under way is put on the queue three times more."""
    queue = django_rq.get_queue("default")
    for run_id, last_seq in unfinished():
        for copy in range(COPIES):
            job_id = f"copy-{run_id}-{last_seq}-{copy}-{time.monotonic_ns()}"
            queue.enqueue_call(dispatch.ADVANCE, args=(run_id,), job_id=job_id, result_ttl=0)
    yield 0


def lost_wake_ups(world: "World") -> Injected:
    """Every job that waits on the queue disappears, as if its process had died between commit and enqueue."""
    django_rq.get_queue("default").empty()  # type: ignore[no-untyped-call]
    world.recovery.expect(due(), on_the_queue=True)
    yield 0


def several_at_once(world: "World") -> Injected:
    """One of the others, then another before the first is over."""
    first, second = (chosen(world) for chosen in world.chance.sample([kill_9, flushall, lost_wake_ups, duplicate_delivery], 2))
    yield from first
    yield from second


FAULTS = [
    Fault("kill -9 of job processes", kill_9, quick_times=4, times=200, every=(0.2, 1.6)),
    Fault("SIGSTOP longer than the lease", pause, quick_times=1, times=12),
    Fault("FLUSHALL", flushall, quick_times=3, times=20, limit_seconds=10),
    Fault("Redis down", redis_down, quick_times=1, times=10, limit_seconds=10),
    Fault("PostgreSQL immediate restart", postgres_restart, quick_times=1, times=12),
    Fault("reply of COMMIT lost", lost_reply, quick_times=2, times=60, through_proxy=True),
    Fault("duplicate delivery", duplicate_delivery, quick_times=3, times=50, every=(0.1, 0.5)),
    Fault("lost wake-ups", lost_wake_ups, quick_times=4, times=100, every=(0.1, 0.4), limit_seconds=10),
    Fault("several at once", several_at_once, quick_times=0, times=40),
]


def somebody_at_work(world: "World") -> Generator[float, None, Member]:
    """A job process that owns a run, as soon as there is one; any where none comes by one."""
    end = time.monotonic() + NOBODY_WRITES_SECONDS
    while True:
        workers = world.chance.sample(world.fleet.workers, len(world.fleet.workers))
        for worker in workers:
            if owned_by([worker.pid, *worker.horses()]):
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
