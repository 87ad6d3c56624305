"""Says how the step that the code asks for now differs from the one that was recorded in its place."""

from collections.abc import Mapping
from typing import Any

from .canonical import digest
from .state import StepState

FIELDS_NAMED = 5


def told(recorded: StepState, asked: Mapping[str, Any] | None, steps: Mapping[int, StepState]) -> str:
    """One sentence: "step 5 was `look_up`, the code now asks for `fetch`". `asked` is None where the code ends before it."""
    was = f"step {recorded.position} was `{recorded.name}`"
    if asked is None:
        return f"{was}, the code now ends before it."
    if asked["name"] != recorded.name:
        return f"{was}, the code now asks for `{asked['name']}`{_known_as(recorded, asked, steps)}."
    if asked["worker"] != recorded.worker:
        return f"{was} by {recorded.worker}, the code now asks for `{asked['name']}` by {asked['worker']}."
    return f"{was}, the code now asks for it with another input{_fields(recorded, asked['input'])}."


def _known_as(recorded: StepState, asked: Mapping[str, Any], steps: Mapping[int, StepState]) -> str:
    """Moved here from another place, or the recorded step under another name; else it is new, and nothing is known of it."""
    for step in steps.values():
        if step.name == asked["name"]:
            return f", which was step {step.position}"
    if (asked["worker"], asked["input"]) == (recorded.worker, recorded.input):
        return ", by the same worker with the same input"
    return ""


def _fields(recorded: StepState, asked: Any) -> str:
    """The fields that differ. What a person edited, or what was masked, is not what the code had asked for: then none."""
    before = recorded.input
    unedited = digest(recorded.name, recorded.worker, before) == recorded.fingerprint
    if not (unedited and isinstance(before, dict) and isinstance(asked, dict)):
        return ""
    names = sorted(name for name in before.keys() | asked.keys() if before.get(name) != asked.get(name))
    more = f" and {len(names) - FIELDS_NAMED} more" if len(names) > FIELDS_NAMED else ""
    return f" ({', '.join(names[:FIELDS_NAMED])}{more})"
