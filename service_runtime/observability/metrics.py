"""Prometheus metrics: counts and durations of calls, and the gauges of the services."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from types import MappingProxyType
from typing import NamedTuple, Protocol

from dgx_music.errors import FailedPrecondition
from service_runtime.observability.logging import get_logger

LOOPBACK = "127.0.0.1"


class Gauge(NamedTuple):
    """A current value for Prometheus."""

    name: str
    """Without the common prefix "dgx_music_", with the unit, e.g. "kv_reserved_bytes"."""
    help: str
    value: float
    labels: Mapping[str, str] = MappingProxyType({})
    """Tells apart the values of one name, which come one after another and have the same label names."""


class MetricsRecorder(Protocol):
    """Records every call that a server has served, and collects the gauges of services."""

    def record_call(self, method: str, code: str, seconds: float) -> None:
        """Records a call. `method` is its path, e.g. "/package.Service/Method"; `code` is the status code's name."""

    def register_gauges(self, read_gauges: Callable[[], Iterable[Gauge]]) -> None:
        """Has `read_gauges` called at every scrape, on a thread of the metrics server."""


@contextmanager
def metrics_endpoint(port: int | None) -> Iterator[MetricsRecorder | None]:
    """Serves metrics on a loopback port while the block runs. Yields None if `port` is None.

    Raises FailedPrecondition if the port is taken.
    """
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

    class PrometheusRecorder:
        def record_call(self, method: str, code: str, duration: float) -> None:
            calls.labels(method, code).inc()
            seconds.labels(method).observe(duration)

        def register_gauges(self, read_gauges: Callable[[], Iterable[Gauge]]) -> None:
            registry.register(GaugeCollector(read_gauges))

    class GaugeCollector(Collector):
        def __init__(self, read_gauges: Callable[[], Iterable[Gauge]]) -> None:
            self._read_gauges = read_gauges

        def collect(self) -> Iterator[Metric]:
            for name, gauges in groupby(self._read_gauges(), key=lambda gauge: gauge.name):
                first, *others = gauges
                family = GaugeMetricFamily(f"dgx_music_{name}", first.help, labels=list(first.labels))
                for gauge in (first, *others):
                    family.add_metric(list(gauge.labels.values()), gauge.value)
                yield family

    try:
        server, thread = start_http_server(port, LOOPBACK, registry=registry)
    except OSError as error:
        raise FailedPrecondition(
            f"cannot serve metrics on {LOOPBACK}:{port}: {error.strerror}; set DGX_MUSIC_METRICS_PORT to another port",
            reason="ADDRESS_TAKEN",
            metadata={"address": f"{LOOPBACK}:{port}"},
        ) from error
    get_logger(__name__).info("serving_metrics", address=f"http://{LOOPBACK}:{server.server_port}/metrics")
    try:
        yield PrometheusRecorder()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
