"""A worker's answer, or its error, in the form in which it is recorded: fitting its type, of a size, without its secrets."""

import traceback
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from runs import sdk
from runs.engine.canonical import clean, normalise, stored
from runs.engine.masking import mask, secrets

AnyWorker = sdk.Worker[..., Any]
SOURCE_LETTERS = 120


class Accepted:
    """A worker's answer in its storable form. Raises pydantic's ValidationError or Unstorable when it has none."""

    def __init__(self, worker: AnyWorker, answer: Any, known: set[str]) -> None:
        result = answer if isinstance(answer, sdk.Result) else None
        names = masked_by(worker)
        self.stored = stored(fitting(worker.dump, result.value if result else answer, secret=bool(names)))
        self.judgement = _judgement(result) if result else {}
        if names:
            known = known | set(secrets(self.stored, names))
            self.stored, self.judgement = mask(self.stored, names, known), mask(self.judgement, (), known)


def masked_by(worker: AnyWorker) -> tuple[str, ...]:
    """What is masked in a step of this worker, which its fallback may come to execute."""
    return worker.masked + (worker.fallback.masked if isinstance(worker.fallback, sdk.Worker) else ())


def said_to_models(worker: AnyWorker, calls: list[dict[str, Any]], known: set[str]) -> dict[str, Any]:
    """What an attempt and models said to one another, as it is recorded with how it ended; nothing where it called none."""
    return {"model_calls": mask(list(calls), masked_by(worker), known)} if calls else {}


def fitting(dump: Callable[[Any], Any], value: Any, *, secret: bool) -> Any:
    """The value as it is recorded; what does not fit is said without the value where that may be secret."""
    try:
        return dump(value)
    except ValidationError as error:
        if not secret:
            raise
        told = [f"{'.'.join(map(str, one['loc'])) or 'it'}: {one['msg']}" for one in error.errors(include_input=False)]
        raise ValueError(f"The value does not fit {error.title}: {'; '.join(told)}.") from None


def _judgement(result: sdk.Result[Any]) -> dict[str, Any]:
    """What the worker says of its estimate; a confidence that is no probability is none, and says so."""
    confidence, why = result.confidence, result.why
    if confidence is not None and not 0 <= (confidence := float(confidence)) <= 1:
        confidence, why = None, f"{why} (it gave {confidence}, which is not between 0 and 1)".strip()
    alternatives = {clean(str(name), 200): normalise(float(share)) for name, share in result.alternatives.items()}
    said = {"confidence": normalise(confidence), "why": clean(why), "source": clean(result.source, SOURCE_LETTERS)}
    return said | {"alternatives": alternatives}


def described(error: BaseException) -> dict[str, Any]:
    """An error as it is recorded."""
    trace = "".join(traceback.format_exception(error))
    return {
        "kind": clean(type(error).__name__, 200),
        "message": clean(str(error) or type(error).__name__),
        "trace": clean(trace, 20_000),
    }
