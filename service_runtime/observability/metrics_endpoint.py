"""Serves the metrics of the process to Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import Any, Protocol

from dgx_music.errors import FailedPrecondition
from service_runtime.observability.logging import get_logger
from service_runtime.observability.metrics import Counter, Distribution, Histogram, Instrument, Reading

log = get_logger(__name__)

ReadMetrics = Callable[[], Iterable[Reading]]


class MetricsEndpoint(Protocol):
    """Shows all instruments, and the readings of those that are registered."""

    def register(self, read_metrics: ReadMetrics) -> None:
        """Calls `read_metrics` at every scrape, on a thread of the endpoint. If it raises, its metrics are
        missing."""


@contextmanager
def metrics_endpoint(port: int | None, host: str = "127.0.0.1") -> Iterator[MetricsEndpoint | None]:
    """Serves metrics on the port while the block runs. Yields None if `port` is None.

    Raises FailedPrecondition if it can't bind to the port on that host, e.g. because another process has.
    """
    if port is None:
        yield None
        return
    import prometheus_client
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
    from prometheus_client.registry import Collector

    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # Nobody reads them.
    registry = prometheus_client.CollectorRegistry()
    for collector in (
        prometheus_client.ProcessCollector,
        prometheus_client.PlatformCollector,
        prometheus_client.GCCollector,
    ):
        collector(registry=registry)

    def create(instrument: Instrument) -> Any:
        names = instrument.name, instrument.help, instrument.labels
        if isinstance(instrument, Histogram):
            return prometheus_client.Histogram(*names, buckets=instrument.buckets, registry=registry)
        kind = prometheus_client.Counter if isinstance(instrument, Counter) else prometheus_client.Gauge
        return kind(*names, registry=registry)

    def build_family(first: Reading) -> Any:
        labels = list(first.labels)
        if isinstance(first.value, Distribution):
            return HistogramMetricFamily(first.name, first.help, labels=labels)
        kind = CounterMetricFamily if first.name.endswith("_total") else GaugeMetricFamily
        return kind(first.name, first.help, labels=labels)

    class ReadingCollector(Collector):
        def __init__(self, read_metrics: ReadMetrics) -> None:
            self._read_metrics = read_metrics

        def collect(self) -> Iterator[Any]:
            try:
                readings = list(self._read_metrics())
            except Exception as error:  # The others are shown nevertheless.
                log.warning("metrics_unreadable", error=str(error) or type(error).__name__)
                return
            for _, same in groupby(readings, key=lambda reading: reading.name):
                family = None
                for reading in same:
                    family = family or build_family(reading)
                    values = list(reading.labels.values())
                    if isinstance(reading.value, Distribution):
                        family.add_metric(values, reading.value.cumulative(), reading.value.sum)
                    else:
                        family.add_metric(values, reading.value)
                yield family

        def describe(self) -> list[Any]:
            return []  # Else it would be read at its registration already.

    class Endpoint:
        def register(self, read_metrics: ReadMetrics) -> None:
            registry.register(ReadingCollector(read_metrics))

    try:
        server, thread = prometheus_client.start_http_server(port, host, registry=registry)
    except OSError as error:
        raise FailedPrecondition(
            f"cannot serve metrics on {host}:{port}: {error.strerror}; set DGX_MUSIC_METRICS_PORT to another port",
            reason="ADDRESS_TAKEN",
            metadata={"address": f"{host}:{port}"},
        ) from error
    attached = [(instrument, create(instrument)) for instrument in Instrument.declared]
    for instrument, metric in attached:
        instrument.attach(metric)
    log.info("serving_metrics", address=f"http://{host}:{server.server_port}/metrics")
    try:
        yield Endpoint()
    finally:
        for instrument, metric in attached:
            instrument.detach(metric)
        server.shutdown()
        server.server_close()
        thread.join()
