"""Two runs beside one another, step by step: what is alike, what differs, and what only one of them has."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from runs.cards import StepCard, cards
from runs.engine.canonical import Large
from runs.engine.comparison import Change, changes
from runs.models import Run

PAIRS_SHOWN = 50  # on one page


@dataclass(frozen=True, slots=True)
class Pair:
    """A step that the supervisor of each run names the same; None where one of them has none."""

    card: StepCard  # the left one where there is one
    left: StepCard | None
    right: StepCard | None
    input: list[Change] = field(default_factory=list)
    output: list[Change] = field(default_factory=list)
    large: bool = False  # a large value differs: it is not told how

    @property
    def differs(self) -> list[str]:
        """In what, in words."""
        if self.left is None or self.right is None:
            return []
        told = [("input", self.input), ("output", self.output), ("a large value", self.large)]
        status = self.left.step.status != self.right.step.status
        return [word for word, is_so in [*told, ("status", status)] if is_so]

    @property
    def is_same(self) -> bool:
        return self.left is not None and self.right is not None and not self.differs


@dataclass(frozen=True, slots=True)
class Pairs:
    """A page of pairs; `after` is the position from which the next goes on, None where there is none."""

    pairs: list[Pair]
    after: int | None

    @property
    def different(self) -> int:
        return sum(not pair.is_same for pair in self.pairs)


def pairs(left: Run, right: Run, *, after: int = 0) -> Pairs:
    """The steps beyond the position, those of the left run in their order; what only the right one has comes after them."""
    places = range(after + 1, after + PAIRS_SHOWN + 1)
    names = dict(left.steps.filter(position__in=places).values_list("name", "position"))
    there = dict(right.steps.filter(name__in=names).values_list("name", "position"))
    others = dict(right.steps.filter(position__in=places).exclude(name__in=names).values_list("name", "position"))
    for name in left.steps.filter(name__in=others).values_list("name", flat=True):
        del others[name]  # it is on another page
    own = {card.step.name: card for card in _cards(left, names.values())}
    found = {card.step.name: card for card in _cards(right, [*there.values(), *others.values()])}
    made = [_pair(card, found.get(name)) for name, card in own.items()]
    made += [Pair(card, None, card) for name, card in found.items() if name not in own]
    last = places[-1]
    return Pairs(made, last if last < max(left.step_count, right.step_count) else None)


def _cards(run: Run, positions: Iterable[int]) -> list[StepCard]:
    wanted = list(positions)
    return cards(run, positions=wanted) if wanted else []


def _pair(left: StepCard, right: StepCard | None) -> Pair:
    if right is None:
        return Pair(left, left, None)
    values = [(left.step.input, right.step.input), (left.step.output, right.step.output)]
    put_in, came_out = (differences(*pair) for pair in values)
    large = any(_is_large(pair) and _hash(pair[0]) != _hash(pair[1]) for pair in values)
    return Pair(left, left, right, put_in, came_out, large)


def differences(left: Any, right: Any) -> list[Change]:
    """Word by word; of large values nothing is told here."""
    return [] if _is_large((left, right)) else changes(left, right)


def _is_large(pair: tuple[Any, Any]) -> bool:
    return any(isinstance(one, Large) for one in pair)


def _hash(value: Any) -> Any:
    return value.hash if isinstance(value, Large) else value
