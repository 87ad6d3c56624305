"""The three kinds of error: try later, give up, ask a person."""


class TryLater(Exception):
    """It failed, and trying again may help; `retry_after` is the least wait in seconds that the other side asked for."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class GiveUp(Exception):
    """It failed, and trying again cannot help: the fallback is next, or else a person."""


class AskHuman(Exception):
    """A person must look at this: no further attempt and no fallback before that."""
