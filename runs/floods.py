"""Protects people from a flood of reviews: new runs of an agent that has too many wait, and go on by themselves."""

from collections import Counter

from runs import dispatch, event_log
from runs.engine.events import Draft, Kind
from runs.engine.state import RunState, Status
from runs.models import AgentConfig, open_reviews

MOST_WOKEN = 100  # that one sweep wakes


def wake() -> int:
    """Wake runs that waited for room and have it now, the oldest first: how many were woken."""
    waiting = list(open_reviews.waiting().values_list("pk", "agent", "waiting_step")[:MOST_WOKEN])
    if not waiting:
        return 0
    most = dict(AgentConfig.objects.filter(slug__in={agent for _, agent, _ in waiting}).values_list("slug", "reviews_per_agent"))
    used = Counter({slug: open_reviews.of_agent(slug) for slug, limit in most.items() if limit is not None})
    woken = 0
    for run_id, agent, step in waiting:
        limit = most.get(agent)
        if step is None and limit is not None and used[agent] >= limit:
            continue
        if _wake_run(run_id):
            used[agent] += 1
            woken += 1
    return woken


def _wake_run(run_id: int) -> bool:
    with event_log.locked(run_id) as log:
        state = log.state
        if state.status != Status.WAITING or state.waiting_cause != open_reviews.CAUSE or not _has_room(run_id, state):
            return False
        log.append(Draft(Kind.RUN_WOKEN, {"reason": "There is room for its reviews."}, state.waiting_step))
        dispatch.enqueue(run_id, state.seq)
    return True


def _has_room(run_id: int, state: RunState) -> bool:
    """Of a run that has not begun, its agent was asked."""
    most = state.config.get("reviews", {}).get("run")
    return state.waiting_step is None or most is None or open_reviews.of_family(run_id) < most
