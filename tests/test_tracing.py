"""What a collector of traces receives of runs, by the real exporter over a real socket."""

import gc
import threading
import weakref
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.util._once import Once
from pytest_django import Settings

from agentops import tracing
from agentops.outside import Outside
from runs import commands, event_log, executor
from runs.integrations import llm
from runs.models import Run
from runs.sdk import Run as Handle
from runs.sdk import TryLater, agent, current_step, worker
from tests.agents import Answer, Order
from tests.world import Reply

pytestmark = pytest.mark.django_db(transaction=True)


class Collector(ThreadingHTTPServer):
    """Keeps what it is sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Received)
        self.spans: list[Any] = []

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]


class Received(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        told = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.path == "/v1/traces"
        self.server.spans += [span for one in told.resource_spans for scope in one.scope_spans for span in scope.spans]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def listening(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())
    with Collector() as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        settings.OTEL_EXPORTER_OTLP_ENDPOINT = f"http://127.0.0.1:{server.server_address[1]}"
        yield server
        server.shutdown()


@pytest.fixture
def collector(listening: Collector) -> Iterator[tuple[Collector, tracing.Traces]]:
    traces = tracing.start()
    yield listening, traces
    traces.stop()


def attributes(span: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


@worker(uses=(llm.MODEL,))
def draft(text: str) -> str:
    if current_step().attempt == 1:
        raise TryLater("secret of the customer")
    return llm.write(Reply, instructions="Be kind.", prompt="secret of the customer").reply


@agent("traced", title="Traced", version="7")
def traced(run: Handle, order: Order) -> Answer:
    return Answer(said=run.step("draft", draft, text=order.text))


def test_a_process_that_only_starts_them_sends_them(listening: Collector) -> None:
    """As apps.py does, which keeps nothing of what it has started."""
    begun = weakref.ref(tracing.start())
    gc.collect()
    run = commands.start("paying", {"text": "hello"}, by="operator")
    commands.cancel(run.pk, by="operator", reason="")
    executor.advance(run.pk, owner="test")
    if traces := begun():
        traces.stop()
    assert len(listening.named("invoke_agent paying")) == 1


def test_a_run_is_a_trace_and_nothing_is_told_twice(
    collector: tuple[Collector, tracing.Traces], model: Outside, settings: Settings
) -> None:
    server, traces = collector
    run = commands.start("traced", {"text": "hello", "number": 0}, by="operator")
    for _ in range(3):  # the second pass replays what the first has recorded, the third finds nothing to do
        Run.objects.filter(pk=run.pk).update(wake_at=None)
        executor.advance(run.pk, owner="test")
    run.refresh_from_db()
    assert run.status == "succeeded", [str(one.data.get("error"))[-900:] for one in event_log.rows(run.pk)][-3:-2]
    traces.provider.force_flush()
    ids = [span.span_id for span in server.spans]
    assert len(ids) == len(set(ids)), "nothing is told twice"
    assert {span.trace_id for span in server.spans} == {tracing.trace_of(run.pk).to_bytes(16)}
    (whole,), (step,) = server.named("invoke_agent traced"), server.named(f"execute_tool {draft.name}")
    first, second = server.named("attempt 1") + server.named("attempt 2")
    assert (whole.parent_span_id, step.parent_span_id, second.parent_span_id) == (b"", whole.span_id, step.span_id)
    assert (first.status.code, second.status.code) == (2, 1)
    assert attributes(step)["gen_ai.tool.name"] == draft.name
    assert attributes(whole)["gen_ai.agent.name"] == "traced"
    assert step.start_time_unix_nano <= second.start_time_unix_nano <= second.end_time_unix_nano <= step.end_time_unix_nano
    called = next(span for span in server.spans if span.name.startswith("chat "))
    assert attributes(called)["gen_ai.usage.output_tokens"] > 0
    above = next(span for span in server.spans if span.span_id == called.parent_span_id)
    assert (above.span_id == second.span_id) or above.parent_span_id == second.span_id, "the call lies in its attempt"
    assert "secret" not in str(server.spans), "what runs are about is told to nobody"


def test_a_second_end_is_a_span_of_its_own(collector: tuple[Collector, tracing.Traces]) -> None:
    server, traces = collector
    run = commands.start("guessing", {"text": "hello", "number": 1}, by="operator")
    executor.advance(run.pk, owner="test")  # it waits for a person
    commands.cancel(run.pk, by="operator")
    commands.retry(run.pk, by="operator")
    commands.cancel(run.pk, by="operator")
    traces.provider.force_flush()
    ends = server.named("invoke_agent guessing")
    assert len({span.span_id for span in ends}) == 2
    assert sorted(span.parent_span_id for span in ends) == [b"", tracing.span_of(run.pk).to_bytes(8)]
