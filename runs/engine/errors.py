"""The three kinds of error: try later, give up, ask a person."""

from typing import Any, Literal

from .backoff import RetryTerms

HoldCause = Literal["limit", "slot", "breaker", "switched_off", "budget"]


class TryLater(Exception):
    """With a sentence: it failed, and trying again may help; `retry_after` is the least wait that the other side asked for.

    With a number, `TryLater(30, why="...")`: nothing has happened yet; look again in so many seconds. That is no attempt.
    """

    terms: RetryTerms | None = None  # of the dependency that failed

    def __init__(self, message: str | float, retry_after: float | None = None, *, why: str = "") -> None:
        not_yet = isinstance(message, int | float)
        super().__init__(why or f"not yet: again in {message:g} s" if not_yet else message)
        self.retry_after, self.why = retry_after, why
        self.seconds: float | None = float(message) if not_yet else None


class HeldBack(TryLater):
    """Nothing was called: there is no room at a dependency now. `why` is the sentence that the run's page shows."""

    def __init__(self, cause: HoldCause, dependency: str, seconds: float, why: str) -> None:
        super().__init__(seconds, why=why)
        self.cause, self.dependency = cause, dependency


class LeftTooLate(HeldBack):
    """It was let in, and did not leave in time: its place in the window, or its slot, may be another's by now."""


class NoBudget(HeldBack):
    """A budget has no room for this call: this step asks a person (`asks`), or waits for who does.

    `finished_by` decided that the run finishes with what there is: nobody is asked again.
    """

    def __init__(
        self, dependency: str, seconds: float, why: str, *, budget: int, question: dict[str, Any], asks: bool, finished_by: str
    ) -> None:
        super().__init__("budget", dependency, seconds, why)
        self.budget, self.question, self.asks, self.finished_by = budget, question, asks, finished_by


class GiveUp(Exception):
    """It failed, and trying again cannot help: the fallback is next, or else a person."""


class AskHuman(Exception):
    """A person must look at this: no further attempt and no fallback before that."""
