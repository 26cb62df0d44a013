"""What is recorded of a request when it ends."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from dgx_music.errors import Aborted
from generation_service.engine.request_handle import GenerationHandle
from generation_service.engine.timings import Timings
from generation_service.processes import request_metrics
from generation_service.processes.request_metrics import record_when_ended
from service_runtime.observability import trace_export, tracing
from tests.support.shown_metrics import shown
from tests.support.tone_model import ToneModel, tone_parameters


class NoEngine:
    """The engine of a handle that nobody reads."""

    def frames_consumed(self, sequence: object, frames: int) -> None: ...

    def cancel(self, sequence: object) -> None: ...

    def suspend(self, sequence: object) -> None: ...


@pytest.fixture
async def handle() -> GenerationHandle:
    return GenerationHandle(
        ToneModel().info, tone_parameters("a", 2), NoEngine(), buffer_seconds=1.0, stall_seconds=1.0
    )


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "memory")
    monkeypatch.setattr(trace_export, "_create_exporter", lambda name, environment: exporter)
    return exporter


async def test_metrics_of_a_completed_request(handle: GenerationHandle) -> None:
    with (
        shown(request_metrics.REQUESTS) as requests,
        shown(request_metrics.QUEUE_SECONDS) as queue,
        shown(request_metrics.PREFILL_SECONDS) as prefill,
        shown(request_metrics.FIRST_CHUNK_SECONDS) as first,
        shown(request_metrics.DECODE_SECONDS) as decode,
        shown(request_metrics.AUDIO_SECONDS) as audio,
    ):
        record_when_ended(handle)
        handle.sequence.timings = Timings(10.0, 11.0, 13.0, 13.5, 14.5, 17.5, 4, 8)
        handle.sequence.frames_delivered = 1600
        handle.on_finished(None)
        handle.on_finished(None)
    assert requests == {("tone", "completed"): [1.0]}
    assert (queue, prefill, first) == ({("tone",): [1.0]}, {("tone",): [0.5]}, {("tone",): [4.5]})
    assert (decode, audio) == ({("tone",): [4.0]}, {("tone",): [0.2]})


async def test_spans_of_a_request_whose_model_had_to_be_loaded(
    handle: GenerationHandle, exporter: InMemorySpanExporter
) -> None:
    with tracing.tracing():
        with tracing.Tracer("generation").span("job"):
            record_when_ended(handle)
        handle.sequence.timings = Timings(10.0, 11.0, 13.0, 13.5, 14.5, 17.5, 4, 8)
        handle.on_finished(None)
    job, *spans = exporter.get_finished_spans()
    assert {span.parent.span_id for span in spans} == {job.context.span_id}
    assert [(span.name, (span.end_time - span.start_time) / 1e9) for span in spans] == [
        ("queue", 1.0),
        ("load model", 2.0),
        ("prefill", 0.5),
        ("decode", 4.0),
    ]
    assert spans[-1].attributes == {"steps": 4, "audio_seconds": 0.0, "mean_batch_size": 2.0}
    assert [event.name for event in spans[-1].events] == ["first chunk"]


async def test_request_that_is_cancelled_while_it_waits(
    handle: GenerationHandle, exporter: InMemorySpanExporter
) -> None:
    with tracing.tracing(), shown(request_metrics.REQUESTS) as requests:
        with tracing.Tracer("generation").span("job"):
            record_when_ended(handle)
        handle.sequence.timings = Timings(submitted_at=10.0)
        handle.cancel(Aborted("the client went away", reason="GENERATION_CANCELLED"))
    assert requests == {("tone", "generation_cancelled"): [1.0]}
    assert [span.name for span in exporter.get_finished_spans()] == ["job", "queue"]


async def test_nothing_is_recorded_for_nobody(handle: GenerationHandle) -> None:
    record_when_ended(handle)
    assert handle._on_end is None
