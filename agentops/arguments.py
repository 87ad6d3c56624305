"""Arguments that several commands share: how they are read, and what is said when they are wrong."""

from argparse import ArgumentTypeError
from collections.abc import Callable

from django.core.management.base import CommandError
from django.db.models import QuerySet

from runs.models import Run, Tombstone

MOST = 1_000_000_000


def whole_number(*, least: int) -> Callable[[str], int]:
    """A type for argparse: a whole number from `least` on."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if not least <= number <= MOST:
            raise ArgumentTypeError(f"{text!r} is not a whole number from {least} to {MOST:,}.")
        return number

    return read


def chosen_runs(ids: list[int]) -> QuerySet[Run]:
    """The runs of these ids, or all where none is named, oldest first. Raises CommandError for an id that no run has."""
    if not ids:
        return Run.objects.order_by("pk")
    chosen = Run.objects.filter(pk__in=ids).order_by("pk")
    if unknown := sorted(set(ids) - set(chosen.values_list("pk", flat=True))):
        gone = Tombstone.objects.filter(run_id__in=unknown)
        if gone:
            raise CommandError(f"{gone[0]}.")
        raise CommandError(f"There is no run {', '.join(map(str, unknown))}.")
    return chosen
