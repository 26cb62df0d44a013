"""OpenTelemetry traces, configured by its standard variables (docs/observability.md lists them).

Without one of them, and unless `tracing` is active, nothing here costs more than looking at a global variable.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from structlog.contextvars import bind_contextvars

from dgx_music.trace_context import TRACE_PARENT_KEY
from service_runtime.observability.logging import get_logger
from service_runtime.optional_deps import install_extra_command

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span

    from service_runtime.observability.trace_export import TraceExport

log = get_logger(__name__)

Attributes = Mapping[str, str | bool | int | float]

ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

SERVER_FAULTS = ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
"""Status codes that are errors of a server, by https://opentelemetry.io/docs/specs/semconv/rpc/grpc/."""

OWN_PREFIX = "/dgx_music."
"""Health checks and reflection are no part of a trace."""
BACKGROUND_METHODS = ("/ClaimGeneration", "/CheckOutput")
"""Workers call these all the time, and start no trace with them."""

_export: TraceExport | None = None
"""Where spans go; None while the process does not trace."""


def is_requested(environment: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry's variables ask for traces: by an endpoint or an exporter, and nothing turns them off."""
    exporter = environment.get("OTEL_TRACES_EXPORTER", "")
    is_disabled = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or exporter == "none"
    return not is_disabled and bool(exporter or any(environment.get(name) for name in ENDPOINT_VARIABLES))


def _log_warning(message: str) -> None:
    log.warning("tracing_unavailable", problem=message)


@contextmanager
def tracing(warn: Callable[[str], None] = _log_warning) -> Iterator[None]:
    """Exports the spans of this process while the block runs, if the environment asks for it. At the end, waits for the
    export of the last ones. Within another such block it does nothing.

    `warn` is told once if OpenTelemetry is not installed. Raises FailedPrecondition if OTEL_TRACES_EXPORTER or the
    protocol is unknown.
    """
    global _export
    if _export is not None or not is_requested(os.environ):
        yield
        return
    try:
        from service_runtime.observability.trace_export import TraceExport
    except ImportError:
        warn(f"traces need OpenTelemetry, which is not installed; install it with: {install_extra_command('otel')}")
        yield
        return
    export = _export = TraceExport.from_environment(os.environ)
    try:
        yield
    finally:
        _export = None
        export.shutdown()


def capture_trace() -> Context | None:
    """Returns the current trace context, for `Tracer.record` later; None if spans are not recorded."""
    if _export is None:
        return None
    from opentelemetry import context

    return context.get_current()


def find_trace_parent(metadata: Iterable[Any] | None) -> str:
    """Returns the W3C trace context in the metadata of a call; empty if there is none."""
    return next((str(value) for key, value in metadata or () if key == TRACE_PARENT_KEY), "")


class Tracer:
    """Creates the spans of one service."""

    def __init__(self, service: str) -> None:
        self._service = service

    @contextmanager
    def span(
        self, name: str, attributes: Attributes | None = None, *, trace_parent: str | None = None
    ) -> Iterator[Span | None]:
        """Records how long the block takes, and the error that it raises. Yields None if spans are not recorded.

        The parent is the current span, unless `trace_parent` is given: it is the W3C trace context of the parent, or
        empty to start a trace. Log lines within the block carry the `trace_id`.
        """
        if _export is None:
            yield None
            return
        from opentelemetry.trace import use_span

        parent = None if trace_parent is None else _parse(trace_parent)
        span = _export.tracer(self._service).start_span(name, parent, attributes=attributes)
        bind_contextvars(trace_id=_trace_id(span))
        with use_span(span, end_on_exit=True):
            yield span

    def record(
        self,
        name: str,
        started_at: float,
        ended_at: float,
        parent: Context | str,
        attributes: Attributes | None = None,
        events: Mapping[str, float] | None = None,
    ) -> None:
        """Records what has already happened. Times are those of `time.monotonic`; `events` maps a name to its time.

        `parent` is a captured trace, or the W3C trace context of the parent.
        """
        if _export is None:
            return
        monotonic_zero_ns = _export.monotonic_zero_ns()

        def at(seconds: float) -> int:
            return monotonic_zero_ns + round(seconds * 1e9)

        span = _export.tracer(self._service).start_span(
            name,
            _parse(parent) if isinstance(parent, str) else parent,
            attributes=attributes,
            start_time=at(started_at),
        )
        for event, happened_at in (events or {}).items():
            span.add_event(event, timestamp=at(happened_at))
        span.end(at(ended_at))


def start_call(method: str, read_metadata: Callable[[], Iterable[Any] | None]) -> Span | None:
    """Starts the span of a call to `method`, e.g. "/package.Service/Method", that the server of this task serves. It
    stays current until the task ends. Returns None if spans are not recorded, or not of such calls.

    `read_metadata` returns the call's metadata, of which a W3C trace context names the parent.
    """
    if _export is None or not method.startswith(OWN_PREFIX):
        return None
    trace_parent = find_trace_parent(read_metadata())
    path = method[1:]
    if not trace_parent and path.endswith(BACKGROUND_METHODS):
        return None
    from opentelemetry import context
    from opentelemetry.trace import SpanKind, set_span_in_context

    parent = _parse(trace_parent)
    span = _export.tracer(method.split(".")[1]).start_span(
        path, parent, SpanKind.SERVER, {"rpc.system.name": "grpc", "rpc.method": path}
    )
    context.attach(set_span_in_context(span, parent))
    bind_contextvars(trace_id=_trace_id(span))
    return span


def end_call(span: Span, code: str) -> None:
    """Ends the span of a call that the server has answered with the status code of this name."""
    from opentelemetry.trace import StatusCode

    span.set_attribute("rpc.response.status_code", code)
    if code in SERVER_FAULTS:
        span.set_status(StatusCode.ERROR, code)
    span.end()


def _parse(trace_parent: str) -> Context:
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({TRACE_PARENT_KEY: trace_parent}, Context())


def _trace_id(span: Span) -> str:
    return f"{span.get_span_context().trace_id:032x}"
