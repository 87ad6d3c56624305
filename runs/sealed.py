"""What a preview showed to a person, sealed until they confirm it: nobody can put another item in, or let it grow old."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.core import signing
from django.utils import timezone

GOOD_FOR = timedelta(hours=1)  # what was seen longer ago is to be looked at again


class OutOfDate(Exception):
    """What was shown is too old, or was not shown to this person."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a person had before them when they confirmed; `id` is that of the preview."""

    id: uuid.UUID
    at: datetime
    shown: list[Any]
    more: dict[str, Any]


def seal(shown: Sequence[Any], *, by: int, salt: str, **more: Any) -> str:
    """A text for a hidden field: what was shown to whom and when, and what else the preview said."""
    told = {"id": str(uuid.uuid4()), "by": by, "at": timezone.now().isoformat(), "shown": shown, "more": more}
    return signing.dumps(told, salt=salt, compress=True)


def opened(sealed: str, *, by: int, salt: str) -> Seen:
    """Raises OutOfDate."""
    try:
        told = signing.loads(sealed, salt=salt, max_age=GOOD_FOR)
    except signing.BadSignature as error:
        raise OutOfDate from error
    if told["by"] != by:
        raise OutOfDate
    return Seen(uuid.UUID(told["id"]), datetime.fromisoformat(told["at"]), told["shown"], told["more"])
