"""Which variables of OpenTelemetry turn traces on, and what is recorded."""

from __future__ import annotations

import asyncio
import sys
import threading
import time

import pytest
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from structlog.contextvars import clear_contextvars, get_contextvars

from dgx_music.errors import FailedPrecondition
from dgx_music.trace_context import trace_metadata
from service_runtime.observability import trace_export, tracing
from service_runtime.observability.tracing import Tracer, capture_trace, end_call, is_requested, start_call

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
METHOD = "/dgx_music.storage.v1.StorageService/GetGeneration"
CLAIM = "/dgx_music.storage.v1.StorageService/ClaimGeneration"


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """Where the spans of a test go, from which they can be read once `tracing` has ended."""
    exporter = InMemorySpanExporter()
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "memory")
    monkeypatch.setattr(trace_export, "_create_exporter", lambda name, environment: exporter)
    clear_contextvars()
    return exporter


@pytest.mark.parametrize(
    ("variables", "is_on"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "music"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4317"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://localhost:4317"}, True),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4317"}, False),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "True"}, False),
    ],
)
def test_standard_variables_turn_traces_on_and_off(variables: dict[str, str], is_on: bool) -> None:
    assert is_requested(variables) is is_on


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER=zipkin .* use otlp, console or none"),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
            "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf; use grpc",
        ),
    ],
)
def test_unknown_exporter_is_refused(variables: dict[str, str], problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(FailedPrecondition, match=problem), tracing.tracing():
        pass
    assert capture_trace() is None


def test_without_the_library_there_is_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    monkeypatch.setitem(sys.modules, "service_runtime.observability.trace_export", None)
    warnings: list[str] = []
    with tracing.tracing(warnings.append), Tracer("cli").span("command") as span:
        assert span is None
    [warning] = warnings
    assert "dgx-music[otel]" in warning


def test_nothing_is_recorded_while_traces_are_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_TRACES_EXPORTER", raising=False)
    with tracing.tracing(), Tracer("cli").span("command") as span:
        assert span is None
        assert capture_trace() is None
        assert start_call(METHOD, list) is None
        assert trace_metadata() == ()


def test_spans_are_nested_and_named_by_their_service(
    exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tracing.tracing(), tracing.tracing(), Tracer("cli").span("command"):
        [(key, value)] = trace_metadata()
        with Tracer("export").span("write", {"frames": 7}):
            pass
    inner, outer = exporter.get_finished_spans()
    assert key == "traceparent"
    assert value.split("-")[2] == f"{outer.context.span_id:016x}"
    assert (inner.parent.span_id, inner.context.trace_id) == (outer.context.span_id, outer.context.trace_id)
    assert [span.resource.attributes["service.name"] for span in (inner, outer)] == [
        "dgx-music-export",
        "dgx-music-cli",
    ]
    assert inner.attributes == {"frames": 7}
    assert get_contextvars()["trace_id"] == f"{outer.context.trace_id:032x}"


def test_the_service_can_be_named(exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "studio")
    with tracing.tracing(), Tracer("cli").span("command"):
        pass
    [span] = exporter.get_finished_spans()
    assert span.resource.attributes["service.name"] == "studio"


def test_sampling_is_that_of_the_specification(exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    with tracing.tracing(), Tracer("cli").span("command"):
        [(_, value)] = trace_metadata()
    assert int(value[-2:], 16) & 1 == 0  # The flag "sampled".
    assert exporter.get_finished_spans() == ()


def test_an_error_ends_the_span(exporter: InMemorySpanExporter) -> None:
    with tracing.tracing(), pytest.raises(ValueError, match="away"), Tracer("cli").span("command"):
        raise ValueError("away")
    [span] = exporter.get_finished_spans()
    assert not span.status.is_ok
    assert [event.name for event in span.events] == ["exception"]


async def test_a_call_continues_the_trace_of_its_caller(exporter: InMemorySpanExporter) -> None:
    async def serve(code: str) -> None:
        span = start_call(METHOD, lambda: [("authorization", "Bearer x"), ("traceparent", CALLER)])
        assert span is not None
        with Tracer("storage").span("query"):
            pass
        end_call(span, code)

    with tracing.tracing():
        await asyncio.create_task(serve("NOT_FOUND"))
        await asyncio.create_task(serve("INTERNAL"))
        assert trace_metadata() == ()
    query, missing, _, failed = exporter.get_finished_spans()
    assert {f"{span.context.trace_id:032x}" for span in (query, missing)} == {CALLER.split("-")[1]}
    assert f"{missing.parent.span_id:016x}" == CALLER.split("-")[2]
    assert query.parent.span_id == missing.context.span_id
    assert missing.attributes["rpc.method"] == METHOD.lstrip("/")
    assert missing.attributes["rpc.response.status_code"] == "NOT_FOUND"
    assert (missing.status.is_unset, failed.status.is_ok) == (True, False)


@pytest.mark.parametrize("method", ["/grpc.health.v1.Health/Check", CLAIM])
async def test_calls_that_happen_anyway_start_no_trace(exporter: InMemorySpanExporter, method: str) -> None:
    with tracing.tracing():
        assert start_call(method, list) is None


async def test_a_malformed_parent_starts_a_trace(exporter: InMemorySpanExporter) -> None:
    async def serve() -> None:
        span = start_call(METHOD, lambda: [("traceparent", "00-zz-1-01")])
        assert span is not None
        end_call(span, "OK")

    with tracing.tracing():
        await asyncio.create_task(serve())
    [span] = exporter.get_finished_spans()
    assert span.parent is None


def test_what_has_happened_is_recorded_with_its_times(exporter: InMemorySpanExporter) -> None:
    with tracing.tracing():
        started_at, now_ns = time.monotonic() - 2.0, time.time_ns()
        tracer = Tracer("generation")
        tracer.record("decode", started_at, started_at + 1.0, CALLER, {"steps": 3}, {"first chunk": started_at + 0.5})
    tracer.record("late", 0.0, 1.0, CALLER)
    [span] = exporter.get_finished_spans()
    assert f"{span.context.trace_id:032x}" == CALLER.split("-")[1]
    assert span.end_time - span.start_time == 10**9
    assert abs(span.start_time - (now_ns - 2 * 10**9)) < 10**9
    assert [(event.name, event.timestamp - span.start_time) for event in span.events] == [("first chunk", 5 * 10**8)]


class SilentCollector(SpanExporter):
    """Takes the first spans, and answers only once the exporter is told to stop."""

    def __init__(self) -> None:
        self._stopped = threading.Event()

    def export(self, spans: object) -> SpanExportResult:
        self._stopped.wait(60)
        return SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self._stopped.set()


def test_a_collector_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "memory")
    monkeypatch.setattr(trace_export, "_create_exporter", lambda name, environment: SilentCollector())
    monkeypatch.setattr(trace_export, "FLUSH_SECONDS", 0.1)
    started_at = time.monotonic()
    with tracing.tracing(), Tracer("cli").span("command"):
        pass
    assert time.monotonic() - started_at < 20.0  # OpenTelemetry itself waits for 30 s.
