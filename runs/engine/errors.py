"""The three kinds of error: try later, give up, ask a person."""


class TryLater(Exception):
    """With a sentence: it failed, and trying again may help; `retry_after` is the least wait that the other side asked for.

    With a number, `TryLater(30, why="...")`: nothing has happened yet; look again in so many seconds. That is no attempt.
    """

    def __init__(self, message: str | float, retry_after: float | None = None, *, why: str = "") -> None:
        not_yet = isinstance(message, int | float)
        super().__init__(why or f"not yet: again in {message:g} s" if not_yet else message)
        self.retry_after, self.why = retry_after, why
        self.seconds: float | None = float(message) if not_yet else None


class GiveUp(Exception):
    """It failed, and trying again cannot help: the fallback is next, or else a person."""


class AskHuman(Exception):
    """A person must look at this: no further attempt and no fallback before that."""
