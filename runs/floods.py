"""Protects people from a flood of reviews: wakes the runs that waited for room, as soon as there is some."""

from collections.abc import Iterable

from runs import dispatch, event_log
from runs.engine.events import Draft, Kind
from runs.engine.state import Status
from runs.models import AgentConfig, open_reviews

MOST_LOOKED_AT = 5000  # runs that wait, in one sweep
MOST_WOKEN = 100  # of one agent, or of one family


def wake() -> int:
    """Wake runs whose agent is paused no more, and those whose family has room for a review: how many were woken.

    The oldest first; whoever has no room costs others nothing.
    """
    if not open_reviews.waiting().exists():
        return 0
    full = [one.agent for one in open_reviews.paused()]
    free = open_reviews.waiting().exclude(waiting_step=None, agent__in=full)
    agents: dict[str, list[int]] = {}
    families: dict[int, list[int]] = {}
    for run_id, agent, step, parent in free.values_list("pk", "agent", "waiting_step", "parent_id")[:MOST_LOOKED_AT]:
        if step is None:
            agents.setdefault(agent, []).append(run_id)
        else:
            families.setdefault(parent or run_id, []).append(run_id)
    most = dict(AgentConfig.objects.filter(slug__in=agents).values_list("slug", "reviews_per_agent"))
    begun = sum(_wake_agent(slug, runs, most.get(slug)) for slug, runs in agents.items())
    return begun + sum(_wake_family(runs) for runs in families.values())


def _wake_agent(slug: str, runs: list[int], most: int | None) -> int:
    room = len(runs) if most is None else most - open_reviews.of_agent(slug)
    return sum(_wake_run(run_id, None) for run_id in runs[: max(0, min(room, MOST_WOKEN))])


def _wake_family(runs: Iterable[int]) -> int:
    """Until one finds no room: the others of its family find none either."""
    open_, woken = None, 0
    for run_id in runs:
        open_ = open_reviews.of_family(run_id) if open_ is None else open_
        if woken == MOST_WOKEN or not _wake_run(run_id, open_ + woken):
            break
        woken += 1
    return woken


def _wake_run(run_id: int, open_: int | None) -> bool:
    """Where it still waits, and may have one more than so many; None: that was looked at."""
    with event_log.locked(run_id) as log:
        state = log.state
        most = state.config.get("reviews", {}).get("run")
        if state.status != Status.WAITING or state.waiting_cause != open_reviews.CAUSE:
            return False
        if open_ is not None and most is not None and open_ >= most:
            return False
        log.append(Draft(Kind.RUN_WOKEN, {"reason": "There is room for its reviews."}, state.waiting_step))
        dispatch.enqueue(run_id, state.seq)
    return True
