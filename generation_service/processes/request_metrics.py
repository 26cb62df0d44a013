"""What Prometheus and traces show of a request: its wait, its prefill, its decoding and its first audio."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from generation_service.engine.request_handle import GenerationHandle
from generation_service.engine.timings import Timings
from service_runtime.observability.metrics import Counter, Histogram
from service_runtime.observability.tracing import Tracer, capture_trace

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from dgx_music.errors import ServiceError

MODEL = ("model",)

QUEUE_SECONDS = Histogram(
    "dgx_music_generation_queue_seconds", "Time that a request waited until it was admitted into the batch.", MODEL
)
PREFILL_SECONDS = Histogram(
    "dgx_music_generation_prefill_seconds",
    "Time from a request's admission to its first step, without the loading of the model.",
    MODEL,
)
FIRST_CHUNK_SECONDS = Histogram(
    "dgx_music_generation_first_chunk_seconds", "Time from the request to its first audio.", MODEL
)
DECODE_SECONDS = Histogram("dgx_music_generation_decode_seconds", "Time from the first step to the last.", MODEL)
AUDIO_SECONDS = Counter("dgx_music_generation_audio_seconds_total", "Length of the audio that requests got.", MODEL)
REQUESTS = Counter(
    "dgx_music_generation_requests_total",
    "Requests to the engines that have ended: completed, or with the reason of their error.",
    (*MODEL, "outcome"),
)

TRACER = Tracer("generation")


def record_when_ended(handle: GenerationHandle) -> None:
    """Records the request when it ends, as part of the current trace."""
    trace = capture_trace()
    if trace is not None or REQUESTS.is_shown:
        handle.when_finished(lambda error: _record(handle, error, trace))


def _record(handle: GenerationHandle, error: ServiceError | None, trace: Context | None) -> None:
    model, timings = handle.info.name, handle.sequence.timings
    audio_seconds = handle.frames_delivered / handle.info.sample_rate_hz
    REQUESTS.inc(model, "completed" if error is None else error.reason.lower())
    AUDIO_SECONDS.inc(model, by=audio_seconds)
    ended_at = timings.ended_at or time.monotonic()
    if timings.admitted_at is not None:
        QUEUE_SECONDS.observe(timings.admitted_at - timings.submitted_at, model)
    if timings.prefill_at is not None and timings.started_at is not None:
        PREFILL_SECONDS.observe(timings.started_at - timings.prefill_at, model)
        DECODE_SECONDS.observe(ended_at - timings.started_at, model)
    if timings.first_block_at is not None:
        FIRST_CHUNK_SECONDS.observe(timings.first_block_at - timings.submitted_at, model)
    if trace is not None:
        _record_spans(timings, ended_at, audio_seconds, trace)


def _record_spans(timings: Timings, ended_at: float, audio_seconds: float, trace: Context) -> None:
    """Records a span for each phase that has begun; the last one lasts to the end."""
    begun = (timings.submitted_at, timings.admitted_at, timings.prefill_at, timings.started_at)
    ends = [later for later in (*begun[1:], ended_at) if later is not None]
    for name, started_at, until in zip(("queue", "load model", "prefill"), begun, ends, strict=False):
        if started_at and (name != "load model" or until - started_at > 0.001):
            TRACER.record(name, started_at, until, trace)
    if timings.started_at is not None:
        attributes: dict[str, float] = {"steps": timings.steps, "audio_seconds": audio_seconds}
        if timings.steps:
            attributes["mean_batch_size"] = timings.batch_rows / timings.steps
        events = {} if timings.first_block_at is None else {"first chunk": timings.first_block_at}
        TRACER.record("decode", timings.started_at, ended_at, trace, attributes, events)
