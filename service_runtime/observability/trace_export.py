"""Sets up the OpenTelemetry SDK from its environment variables. Needs the extra `otel`."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping
from importlib.metadata import version

from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.trace import Tracer

from dgx_music.errors import FailedPrecondition

FLUSH_SECONDS = 2.0
"""How long the end of the process waits for a collector that takes no spans."""

CLOCK_TOLERANCE_NS = 100_000_000
"""How much may pass between the readings of two clocks."""


class TraceExport:
    """Sends spans to one exporter. Services that share a process have names of their own."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._processor = BatchSpanProcessor(exporter)
        self._tracers: dict[str, Tracer] = {}
        self._monotonic_zero_ns = _measure_monotonic_zero_ns()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> TraceExport:
        """Raises FailedPrecondition for an exporter that does not exist here."""
        return cls(_create_exporter(environment.get("OTEL_TRACES_EXPORTER") or "otlp", environment))

    def tracer(self, service: str) -> Tracer:
        """Returns the tracer of a service, whose resource is named by OTEL_SERVICE_NAME or else dgx-music-SERVICE."""
        tracer = self._tracers.get(service)
        if tracer is None:
            named = Resource.create({SERVICE_VERSION: version("dgx-music")})  # With OTEL_SERVICE_NAME.
            if str(named.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
                named = named.merge(Resource({SERVICE_NAME: f"dgx-music-{service}"}))
            provider = TracerProvider(resource=named, shutdown_on_exit=False)
            provider.add_span_processor(self._processor)
            tracer = self._tracers[service] = provider.get_tracer("dgx_music", version("dgx-music"))
        return tracer

    def monotonic_zero_ns(self) -> int:
        """Returns the Unix time at which the monotonic clock was 0, in nanoseconds: the same one until the system's
        clock is set, so that times stay in their order."""
        measured = _measure_monotonic_zero_ns()
        if abs(measured - self._monotonic_zero_ns) > CLOCK_TOLERANCE_NS:
            self._monotonic_zero_ns = measured
        return self._monotonic_zero_ns

    def shutdown(self) -> None:
        """Exports the spans that have ended, for at most FLUSH_SECONDS, and stops."""
        give_up = threading.Timer(FLUSH_SECONDS, self._exporter.shutdown)
        give_up.daemon = True
        give_up.start()
        self._processor.shutdown()  # type: ignore[no-untyped-call]
        give_up.cancel()


def _measure_monotonic_zero_ns() -> int:
    return time.time_ns() - time.monotonic_ns()


def _create_exporter(name: str, environment: Mapping[str, str]) -> SpanExporter:
    match name:
        case "console":
            return ConsoleSpanExporter(out=sys.stderr)  # Standard output may carry audio.
        case "otlp":
            protocol = (
                environment.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
                or environment.get("OTEL_EXPORTER_OTLP_PROTOCOL")
                or "grpc"
            )
            if protocol == "grpc":
                from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

                return OTLPSpanExporter()
            raise FailedPrecondition(
                f"traces can't be sent by OTEL_EXPORTER_OTLP_PROTOCOL={protocol}; use grpc, usually at port 4317",
                reason="UNKNOWN_TRACE_PROTOCOL",
            )
    raise FailedPrecondition(
        f"OTEL_TRACES_EXPORTER={name} is not a known exporter; use otlp, console or none",
        reason="UNKNOWN_TRACE_EXPORTER",
    )
