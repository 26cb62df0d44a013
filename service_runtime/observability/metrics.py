"""Metrics for Prometheus: calls served, and the services' own gauges."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

from dgx_music.errors import FailedPrecondition
from service_runtime.observability.logging import get_logger

LOOPBACK = "127.0.0.1"


class Gauge(NamedTuple):
    """Something measured now, for Prometheus."""

    name: str
    """Without the "dgx_music_" that all begin with; with the unit, e.g. "kv_reserved_bytes"."""
    help: str
    value: float


class Observer(Protocol):
    """Is told of every call that a server has served, and asks services for figures of their own."""

    def call_ended(self, method: str, code: str, seconds: float) -> None:
        """`method` is the full name with slashes, `code` the status code's name."""

    def watch(self, measure: Callable[[], Iterable[Gauge]]) -> None:
        """Calls `measure` whenever somebody asks for the metrics, in a thread of its own."""


@contextmanager
def metrics_endpoint(port: int | None) -> Iterator[Observer | None]:
    """Serves request metrics on a loopback port while the block runs; without a port, measures nothing."""
    if port is None:
        yield None
        return
    from prometheus_client import (
        CollectorRegistry,
        Counter,
        GCCollector,
        Histogram,
        Metric,
        PlatformCollector,
        ProcessCollector,
        start_http_server,
    )
    from prometheus_client.core import GaugeMetricFamily
    from prometheus_client.registry import Collector

    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    calls = Counter("dgx_music_rpcs", "Calls served.", ["method", "code"], registry=registry)
    seconds = Histogram("dgx_music_rpc_seconds", "How long calls took.", ["method"], registry=registry)

    class Metrics:
        def call_ended(self, method: str, code: str, duration: float) -> None:
            calls.labels(method, code).inc()
            seconds.labels(method).observe(duration)

        def watch(self, measure: Callable[[], Iterable[Gauge]]) -> None:
            registry.register(Gauges(measure))

    class Gauges(Collector):
        def __init__(self, measure: Callable[[], Iterable[Gauge]]) -> None:
            self._measure = measure

        def collect(self) -> Iterator[Metric]:
            for gauge in self._measure():
                yield GaugeMetricFamily(f"dgx_music_{gauge.name}", gauge.help, value=gauge.value)

    try:
        server, thread = start_http_server(port, LOOPBACK, registry=registry)
    except OSError as error:
        raise FailedPrecondition(
            f"can't serve metrics on {LOOPBACK}:{port}: {error.strerror}; "
            "choose another port by DGX_MUSIC_METRICS_PORT",
            reason="ADDRESS_TAKEN",
            metadata={"address": f"{LOOPBACK}:{port}"},
        ) from error
    get_logger(__name__).info("metrics", address=f"http://{LOOPBACK}:{server.server_port}/metrics")
    try:
        yield Metrics()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
