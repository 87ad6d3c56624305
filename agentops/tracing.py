"""Runs as OpenTelemetry traces: a run is a trace, a step a span, an attempt and a call of a model spans within it.

A span is made when the event that ends it is committed, with ids that follow from run, step and attempt: what is only replayed
writes no event, so nothing is told twice.
"""

import hashlib
import random
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from django.conf import settings
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import Link, SpanContext, Status, StatusCode, TraceFlags

from runs import event_log, signals
from runs.engine.events import Fact, Kind
from runs.engine.state import RunState, StepState
from runs.engine.step import UNFINISHED
from runs.values import current_step

RUN_ENDS = (Kind.RUN_SUCCEEDED, Kind.RUN_FAILED, Kind.RUN_CANCELLED)
STEP_ENDS = (
    Kind.STEP_SUCCEEDED,
    Kind.STEP_SKIPPED,
    Kind.STEP_DECIDED,
    Kind.STEP_EXPIRED,
    Kind.STEP_WITHDRAWN,
    Kind.ATTEMPT_FAILED,
)
FAILED = ("failed", "rejected", "expired")
OF_STEP = "agentops.step.key"


class Traces:
    """The way of the spans of this process to where they are collected."""

    def __init__(self, endpoint: str) -> None:
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
        self.sending = BatchSpanProcessor(exporter)
        self.resource = Resource.create({"service.name": "agentops", "service.version": _version()})
        self.provider = TracerProvider(resource=self.resource, id_generator=OfItsRun())
        self.provider.add_span_processor(InItsAttempt(self.sending))
        signals.written.connect(self.tell, weak=False)  # nobody else keeps what has been started

    def tell(self, run_id: int, state: RunState, facts: Sequence[Fact], **_: Any) -> None:
        """What these events, which are committed, have ended."""
        for fact in facts:
            for span in _ended(run_id, state, fact):
                self.sending.on_end(_readable(span, self.resource))

    def stop(self) -> None:
        """Send what waits, and tell nothing more."""
        signals.written.disconnect(self.tell)
        self.provider.shutdown()


def start() -> Traces:
    """Where an endpoint is configured; calls of models are then traced by their own library too."""
    begun = Traces(settings.OTEL_EXPORTER_OTLP_ENDPOINT)
    trace.set_tracer_provider(begun.provider)
    return begun


def _version() -> str:
    try:
        return version("agentops")
    except PackageNotFoundError:  # a checkout that was not installed
        return "unknown"


# --- which it is ----------------------------------------------------------------------------------------------------


def trace_of(run_id: int) -> int:
    """The same in every process of this installation, and another in every other."""
    return int.from_bytes(_digest("run", run_id)[:16])


def span_of(run_id: int, *which: int | str) -> int:
    """Of the run itself, of a step (its position), or of an attempt (and its number)."""
    return int.from_bytes(_digest("span", run_id, *which)[:8]) or 1


def _digest(*parts: int | str) -> bytes:
    return hashlib.sha256(":".join([settings.SECRET_KEY, *map(str, parts)]).encode()).digest()


def _context(run_id: int, *which: int | str) -> SpanContext:
    return SpanContext(trace_of(run_id), span_of(run_id, *which), is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))


# --- what an event ends ---------------------------------------------------------------------------------------------

Told = dict[str, Any]  # the arguments of a ReadableSpan, its times as datetimes


def _ended(run_id: int, state: RunState, fact: Fact) -> Iterator[Told]:
    if fact.kind in RUN_ENDS:
        yield _of_run(run_id, state, fact)
    if fact.kind == Kind.RUN_CANCELLED:
        yield from (_of_step(run_id, one, fact) for one in state.steps.values() if one.status == "cancelled")
    step = state.steps.get(fact.step or 0)
    if step is None:
        return
    if attempt := _of_attempt(run_id, step, fact):
        yield attempt
    if fact.kind in STEP_ENDS and step.status not in UNFINISHED:
        yield _of_step(run_id, step, fact)


def _of_run(run_id: int, state: RunState, fact: Fact) -> Told:
    which = _which(run_id, None, fact, RUN_ENDS)
    parent = state.parent_id
    said = {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": state.agent,
        "gen_ai.agent.version": state.agent_version,
    }
    return {
        "name": f"invoke_agent {state.agent}",
        "context": _context(run_id, *which),
        "parent": _context(run_id) if which else None,
        "links": [Link(_context(parent))] if parent else [],
        "attributes": said | {"agentops.run.id": run_id, "agentops.run.status": state.status} | _error(state.error, state.status),
        "status": _status(state.status),
        "start_time": state.requested_at,
        "end_time": fact.at,
    }


def _of_step(run_id: int, step: StepState, fact: Fact) -> Told:
    may_be_again = fact.kind != Kind.STEP_SUCCEEDED or step.tries != step.attempt or bool(step.fallback)
    which = (step.position, *(_which(run_id, step.position, fact, STEP_ENDS) if may_be_again else ()))
    said = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": step.worker}
    about = {"agentops.step": step.position, "agentops.step.name": step.name, "agentops.step.status": step.status}
    more = {"agentops.step.cause": step.cause, "agentops.step.confidence": step.confidence, "agentops.step.effect": step.effect}
    return {
        "name": f"execute_tool {step.worker}",
        "context": _context(run_id, *which),
        "parent": _context(run_id),
        "attributes": said
        | about
        | {name: value for name, value in more.items() if value is not None}
        | _error(step.error, step.status),
        "status": _status(step.status),
        "start_time": step.started_at or fact.at,
        "end_time": fact.at,
    }


def _which(run_id: int, position: int | None, fact: Fact, kinds: Sequence[Kind]) -> tuple[int, ...]:
    """Its place in the log where it is not the first end: a run was retried, a decision taken back, a fallback tried."""
    before = event_log.rows(run_id).filter(seq__lt=fact.seq, step=position, kind__in=kinds)
    return (fact.seq,) if before.exists() else ()


def _of_attempt(run_id: int, step: StepState, fact: Fact) -> Told | None:
    match fact.kind:
        case Kind.STEP_SUCCEEDED | Kind.ATTEMPT_FAILED if "duration_ms" in fact.data:
            seconds = (fact.data["duration_ms"] or 0) / 1000
        case Kind.ATTEMPT_CRASHED:
            seconds = fact.data["seconds"]
        case _:
            return None
    number = fact.data.get("attempt", step.attempt)
    status = "succeeded" if fact.kind == Kind.STEP_SUCCEEDED else "failed"
    return {
        "name": f"attempt {number}",
        "context": _context(run_id, step.position, "attempt", number),
        "parent": _context(run_id, step.position),
        "attributes": {"agentops.attempt": number} | _error(fact.data.get("error"), status),
        "status": _status(status),
        "start_time": fact.at - timedelta(seconds=seconds),
        "end_time": fact.at,
    }


def _error(error: dict[str, Any] | None, status: str) -> dict[str, str]:
    """Of what kind it is: its text may hold what is nobody else's business."""
    return {"error.type": str((error or {}).get("kind") or status)} if status in FAILED else {}


def _status(status: str) -> Status:
    return Status(StatusCode.ERROR if status in FAILED else StatusCode.OK)


def _readable(told: Told, resource: Resource) -> ReadableSpan:
    times = {name: _nanoseconds(told[name]) for name in ("start_time", "end_time")}
    return ReadableSpan(**told | times, resource=resource)


def _nanoseconds(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000) * 1000


# --- calls of models ------------------------------------------------------------------------------------------------


class OfItsRun(IdGenerator):
    """What the library of a model traces while a step is executed belongs to the trace of its run."""

    def generate_trace_id(self) -> int:
        step = current_step_or_none()
        return trace_of(step.run_id) if step else random.getrandbits(128) or 1

    def generate_span_id(self) -> int:
        return random.getrandbits(64) or 1


class InItsAttempt(SpanProcessor):
    """And there within the attempt that makes the call."""

    def __init__(self, then: SpanProcessor) -> None:
        self._then = then

    def on_start(self, span: Span, parent_context: Any = None) -> None:
        if span.parent is None and (step := current_step_or_none()):
            span.set_attribute(OF_STEP, f"{step.run_id}:{step.position}:{step.attempt}")

    def on_end(self, span: ReadableSpan) -> None:
        key = (span.attributes or {}).get(OF_STEP)
        run_id, *which = map(int, str(key).split(":")) if key else (0,)
        self._then.on_end(_bare(span, _context(run_id, which[0], "attempt", which[1]) if run_id else span.parent))

    def shutdown(self) -> None:
        self._then.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._then.force_flush(timeout_millis)


def _bare(span: ReadableSpan, parent: SpanContext | None) -> ReadableSpan:
    """Within this parent; without the texts of errors, in which there may be what was written."""
    return ReadableSpan(
        name=span.name, context=span.context, parent=parent, resource=span.resource, attributes=span.attributes,
        links=span.links, kind=span.kind, status=Status(span.status.status_code), start_time=span.start_time,
        end_time=span.end_time, instrumentation_scope=span.instrumentation_scope,
    )  # fmt: skip


def current_step_or_none() -> Any:
    """The step of a run that is executed here."""
    try:
        step = current_step()
    except LookupError:
        return None
    return step if step and step.run_id else None
