"""The trace context that calls carry."""

from __future__ import annotations

import sys

import pytest
from opentelemetry.context import attach, detach
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from dgx_music.trace_context import is_tracing_loaded, trace_metadata


def test_calls_carry_the_current_span_by_w3c() -> None:
    span = NonRecordingSpan(
        SpanContext(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, False, TraceFlags(TraceFlags.SAMPLED))
    )
    token = attach(set_span_in_context(span))
    try:
        assert trace_metadata() == (("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),)
    finally:
        detach(token)
    assert trace_metadata() == ()


def test_a_program_that_does_not_trace_never_loads_opentelemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_tracing_loaded()
    monkeypatch.delitem(sys.modules, "opentelemetry.trace")
    assert not is_tracing_loaded()
    assert trace_metadata() == ()
    assert "opentelemetry.trace" not in sys.modules
