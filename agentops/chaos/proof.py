"""How the proofs of a trial wait, come to their end, and say what did not hold."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from agentops.chaos.faults import Injected
from runs.models import Run
from runs.models.run import ENDED

if TYPE_CHECKING:
    from agentops.chaos.trial import World


def over(world: "World") -> Injected:
    """People decide what is left, also about forks, and every run ends."""
    world.people.leave_alone.clear()
    mine = Run.objects.filter(input__phase=world.people.phase)
    yield from until(world, lambda: not mine.exclude(status__in=ENDED).exists())


def until(world: "World", condition: Callable[[], bool]) -> Injected:
    """Or until that has taken too long: whoever needs it judges what there is."""
    end = time.monotonic() + 2 * world.patience_seconds
    while not condition() and time.monotonic() < end:
        yield 0.1


def counted(inject: Callable[["World"], Injected]) -> Callable[["World"], Injected]:
    """The same fault; where it came over nothing, nothing was shown, and that does not hold."""

    def phase(world: "World") -> Injected:
        yield from inject(world)
        judge(world, world.hits > 0, "nothing came of it, so nothing was shown")

    return phase


def judge(world: "World", holds: bool, sentence: str) -> None:
    if not holds:
        world.broken.append(f"{world.people.phase}: {sentence}.")
