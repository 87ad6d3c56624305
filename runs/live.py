"""Tells open pages that there is something new: a number, never content."""

import structlog
from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from redis.exceptions import RedisError

logger = structlog.get_logger()
EVERY_RUN = "runs"  # the group of pages that show more than one run


def run_group(run_id: int) -> str:
    """Name of the channel group of those who look at one run."""
    return f"run-{run_id}"


def nudge(run_id: int, seq: int) -> None:
    """Say "run `run_id` now has `seq` events"; when Redis is down the pages find out by asking (consumers.py)."""
    message = {"type": "changed", "run": run_id, "seq": seq}
    send((run_group(run_id), EVERY_RUN), message)


def send(groups: tuple[str, ...], message: dict[str, object]) -> None:
    """Send one message to each group; a lost one is logged and made good by the next look."""
    try:
        async_to_sync(_send_all)(groups, message)
    except (RedisError, OSError) as error:
        logger.warning("nudge_lost", groups=groups, error=str(error))


async def _send_all(groups: tuple[str, ...], message: dict[str, object]) -> None:
    layer = get_channel_layer()
    for group in groups:
        await layer.group_send(group, message)
