"""What a tag of a run is: a short word by which people find it again, or two with a colon between them."""

import re
from collections.abc import Iterable

MOST = 10  # of one run
LONGEST = 40
_WORD = "[a-z0-9]+(?:[-.][a-z0-9]+)*"
SHAPE = re.compile(f"{_WORD}(?::{_WORD})?")
RULE = (
    f"a tag is a word of small letters (a to z) and digits, such as vip or second-try, or two with a colon between them, such "
    f"as region:eu; at most {LONGEST} letters"
)


def checked(given: str | Iterable[str]) -> list[str]:
    """In order, each once; a text has them with commas between. Raises ValueError with a sentence for what is no tag."""
    named = typed(given) if isinstance(given, str) else list(given)
    for one in named:
        if not isinstance(one, str) or len(one) > LONGEST or not SHAPE.fullmatch(one):
            raise ValueError(f"“{str(one)[: LONGEST + 1]}” cannot be a tag: {RULE}.")
    found = sorted(set(named))
    if len(found) > MOST:
        raise ValueError(f"A run has at most {MOST} tags; these are {len(found)}.")
    return found


def typed(text: str) -> list[str]:
    """What stands between the commas, in small letters."""
    return [one for part in text.split(",") if (one := part.strip().lower())]
