"""Serves the metrics of the process to Prometheus."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import groupby
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, Protocol
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from dgx_music.errors import FailedPrecondition
from service_runtime.observability.logging import get_logger
from service_runtime.observability.metrics import Counter, Distribution, Histogram, Instrument, Reading

log = get_logger(__name__)

MAX_SCRAPES = 8
"""Requests that are answered at a time. A thread serves each."""
REQUEST_SECONDS = 5.0
"""How long a request may take to arrive."""

ReadMetrics = Callable[[], Iterable[Reading]]


class MetricsEndpoint(Protocol):
    """Shows all instruments, and the readings of those that are registered."""

    def register(self, read_metrics: ReadMetrics) -> None:
        """Calls `read_metrics` at every scrape, on a thread of the endpoint. If it raises, its metrics are
        missing."""


@contextmanager
def metrics_endpoint(
    port: int | None, host: str = "127.0.0.1", accepts_host: Callable[[str], bool] = lambda name: True
) -> Iterator[MetricsEndpoint | None]:
    """Serves metrics on the port while the block runs, to requests whose Host header is accepted. Yields None if `port`
    is None.

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
        server = _build_server(host, port, prometheus_client.make_wsgi_app(registry), accepts_host)
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
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield Endpoint()
    finally:
        for instrument, metric in attached:
            instrument.detach(metric)
        server.shutdown()
        server.server_close()
        thread.join()


def _build_server(host: str, port: int, page: Any, accepts_host: Callable[[str], bool]) -> WSGIServer:
    """Returns a server that is bound. Raises OSError if that is not possible."""

    class Server(_BoundedServer):
        address_family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]

    def answer(environ: dict[str, Any], start_response: Any) -> Any:
        if accepts_host(environ.get("HTTP_HOST", "")):
            return page(environ, start_response)
        start_response("421 Misdirected Request", [("Content-Type", "text/plain; charset=utf-8")])
        return [b"this server does not answer to that host name; add it to DGX_MUSIC_ALLOWED_HOSTS\n"]

    return make_server(host, port, answer, Server, _Handler)


class _BoundedServer(ThreadingMixIn, WSGIServer):
    """Serves a few requests at a time, each in a thread; further ones wait until the system refuses them."""

    daemon_threads = True

    def __init__(self, *arguments: Any) -> None:
        self._places = threading.BoundedSemaphore(MAX_SCRAPES)
        super().__init__(*arguments)

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's would look the host up in the DNS, which may take seconds.
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._places.acquire(timeout=REQUEST_SECONDS):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        # The handler's own timeout is that of each byte.
        timer = threading.Timer(REQUEST_SECONDS, self._end_request, [request])
        timer.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            timer.cancel()
            self._places.release()

    @staticmethod
    def _end_request(request: socket.socket) -> None:
        with suppress(OSError):  # It has just ended.
            request.shutdown(socket.SHUT_RD)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of a client that leaves or is too slow."""


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        """Logs nothing."""
