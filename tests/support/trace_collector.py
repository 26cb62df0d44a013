"""`TraceCollector`: an OpenTelemetry collector, written with OTLP's own stubs, that keeps the spans it receives."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

WAIT_SECONDS = 60.0


@dataclass(frozen=True)
class ReceivedSpan:
    """A span, with the name of the service that it comes from."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    """Empty for the root of a trace."""
    attributes: dict[str, Any]
    events: tuple[str, ...]
    started_ns: int
    ended_ns: int
    is_error: bool


class TraceCollector(trace_service_pb2_grpc.TraceServiceServicer):
    """Receives spans from any number of processes."""

    def __init__(self) -> None:
        self.spans: list[ReceivedSpan] = []
        self.address = ""
        self._changed = threading.Condition()

    def Export(self, request: Any, context: Any) -> Any:
        with self._changed:
            for group in request.resource_spans:
                service = _values(group.resource.attributes)["service.name"]
                self.spans += [_received(service, span) for scope in group.scope_spans for span in scope.spans]
            self._changed.notify_all()
        return trace_service_pb2.ExportTraceServiceResponse()

    def wait_for(self, is_wanted: Callable[[ReceivedSpan], bool]) -> ReceivedSpan:
        """Returns the first such span, as soon as it has arrived."""

        def find() -> ReceivedSpan | None:
            return next(filter(is_wanted, self.spans), None)

        with self._changed:
            found = self._changed.wait_for(find, WAIT_SECONDS)
        assert found is not None, [f"{span.service}: {span.name}" for span in self.spans]
        return found

    def trace(self, trace_id: str) -> list[ReceivedSpan]:
        """Returns the spans of a trace."""
        with self._changed:
            return [span for span in self.spans if span.trace_id == trace_id]


@contextmanager
def running_collector() -> Iterator[TraceCollector]:
    """A collector at `address`, a URL as OTEL_EXPORTER_OTLP_ENDPOINT takes it."""
    collector = TraceCollector()
    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    collector.address = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(None).wait()


def _received(service: str, span: Any) -> ReceivedSpan:
    return ReceivedSpan(
        service,
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        _values(span.attributes),
        tuple(event.name for event in span.events),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        span.status.code == span.status.STATUS_CODE_ERROR,
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in attributes}
