"""The W3C trace context of calls: continues the caller's OpenTelemetry trace at the server.

A program that traces with OpenTelemetry needs to do nothing more; one that does not never loads it.
"""

from __future__ import annotations

import sys

TRACE_PARENT_KEY = "traceparent"
"""Key of the metadata, by https://www.w3.org/TR/trace-context/#traceparent-header."""

_API_MODULE = "opentelemetry.trace"


def is_tracing_loaded() -> bool:
    """Whether the program has loaded OpenTelemetry, so that calls may belong to a trace."""
    return _API_MODULE in sys.modules


def trace_metadata() -> tuple[tuple[str, str], ...]:
    """Returns the metadata that makes a call part of the current trace; empty if there is none."""
    api = sys.modules.get(_API_MODULE)
    if api is None:
        return ()
    current = api.get_current_span().get_span_context()
    if not current.is_valid:
        return ()
    return ((TRACE_PARENT_KEY, f"00-{current.trace_id:032x}-{current.span_id:016x}-{current.trace_flags:02x}"),)
