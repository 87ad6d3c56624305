"""Secrets that a worker names are taken out of whatever is recorded of its step: its input, its answer, its errors."""

from collections.abc import Collection, Iterator
from typing import Any

MASK = "•••"
LEAST_LETTERS = 4  # a shorter secret is not looked for in other text: it would be found everywhere


def secrets(value: Any, names: Collection[str]) -> Iterator[str]:
    """The texts under one of these names, anywhere in the value."""
    if isinstance(value, list):
        for item in value:
            yield from secrets(item, names)
    if isinstance(value, dict):
        for name, item in value.items():
            if name in names and isinstance(item, str):
                yield item
            else:
                yield from secrets(item, names)


def mask(value: Any, names: Collection[str], known: Collection[str]) -> Any:
    """The value with a mask for each text under one of these names, and for each known secret within other text."""
    if isinstance(value, str):
        return _without(value, known)
    if isinstance(value, list):
        return [mask(item, names, known) for item in value]
    if isinstance(value, dict):
        return {
            name: MASK if name in names and isinstance(item, str) else mask(item, names, known) for name, item in value.items()
        }
    return value


def unmask(recorded: Any, real: Any) -> Any:
    """The recorded value with what is masked in it as it really is; what a person has edited since stays."""
    if recorded == MASK:
        return real
    if isinstance(recorded, list) and isinstance(real, list) and len(recorded) == len(real):
        return [unmask(one, other) for one, other in zip(recorded, real, strict=True)]
    if isinstance(recorded, dict) and isinstance(real, dict):
        return {name: unmask(item, real[name]) if name in real else item for name, item in recorded.items()}
    return recorded


def _without(text: str, known: Collection[str]) -> str:
    for secret in sorted(known, key=len, reverse=True):
        if len(secret) >= LEAST_LETTERS:
            text = text.replace(secret, MASK)
    return text
