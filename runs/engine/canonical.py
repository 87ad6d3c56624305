"""One written form for every value that is stored: what is hashed is what PostgreSQL's jsonb gives back."""

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any

import orjson

PAYLOAD_LIMIT_BYTES = 10_000_000  # one value of a step; larger ones belong in a file store that the value names
INLINE_LETTERS = 65_536  # of an event's whole data; beyond, its largest values are set apart


class Unstorable(ValueError):
    """A value that cannot be kept in the log; the message says which and why."""


def normalise(value: Any) -> Any:
    """Return the value as jsonb would return it (1.0 becomes 1), or raise Unstorable.

    Accepts None, bool, int, float, str, list, tuple and dict with text keys, nested.
    """
    if isinstance(value, str):
        return _text(value)
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, list | tuple):
        return [normalise(item) for item in value]
    if isinstance(value, dict):
        return {_key(key): normalise(item) for key, item in value.items()}
    raise Unstorable(f"A {type(value).__name__} cannot be stored; use text, numbers, true/false, lists and objects.")


def clean(text: str, limit: int = 2000) -> str:
    """Free text (an error, a reason) that can always be stored: odd characters replaced, at most `limit` letters."""
    text = text.replace("\x00", "\ufffd").encode(errors="replace").decode()
    if len(text) <= limit:
        return text
    note = f" … ({len(text):,} letters in all)"
    return text[: max(0, limit - len(note))] + note


def dumps(value: Any) -> str:
    """Text of a normalised value: sorted keys, no spaces."""
    try:
        return orjson.dumps(value, None, orjson.OPT_SORT_KEYS).decode()
    except TypeError:  # what orjson does not write: a whole number of more than 64 bits, more than 254 levels
        return dumps_plainly(value)


# Also how logs before November 2026 were written: it differs in numbers like 1e-07, which orjson writes as 1e-7.
dumps_plainly = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


def stored(value: Any) -> Any:
    """Normalise the value and check its size; raise Unstorable when it is over the limit."""
    clean = normalise(value)
    size = _bytes(dumps(clean))
    if size > PAYLOAD_LIMIT_BYTES:
        raise Unstorable(f"The value is {size:,} bytes; the limit is {PAYLOAD_LIMIT_BYTES:,} bytes.")
    return clean


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def digest(*parts: Any) -> str:
    """SHA-256 (hex) over the canonical text of the parts."""
    return sha256(dumps(list(parts)))


def sha256(text: str) -> str:
    """In hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


# --- values too large to stand in an event --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Large:
    """Stands in a page where a value is that was set apart."""

    run_id: int
    hash: str
    bytes: int


def set_apart(data: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The data without its large values, and those by their SHA-256 as canonical text.

    The first holds None for each, and under "large" {key: {"hash", "bytes"}}; `put_back` is its reverse.
    """
    texts = {key: text for key, value in data.items() if len(text := dumps(value)) > INLINE_LETTERS // 8}
    hashes = {key: sha256(text) for key, text in texts.items()}
    apart = {key: {"hash": hashes[key], "bytes": len(text.encode())} for key, text in texts.items()}
    return data | dict.fromkeys(texts) | {"large": apart}, {hashes[key]: text for key, text in texts.items()}


def put_back(stub: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """The data with its large values, from a mapping by SHA-256; "large" stays and says which they are."""
    return stub | {key: values[one["hash"]] for key, one in stub.get("large", {}).items()}


def _number(value: float) -> float | int:
    if not math.isfinite(value):
        raise Unstorable(f"The number {value} cannot be stored.")
    return int(value) if value.is_integer() else value


def _text(value: str) -> str:
    if "\x00" in value:
        raise Unstorable("Text with a NUL character cannot be stored.")
    try:
        value.isascii() or value.encode()
    except UnicodeEncodeError as error:
        raise Unstorable("Text with half a surrogate pair cannot be stored.") from error
    return value


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise Unstorable(f"The key {key!r} of an object is not text.")
    return _text(key)
