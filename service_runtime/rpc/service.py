"""What a service is to the server that runs it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import grpc.aio

from service_runtime.observability.metrics import Gauge


class Service(Protocol):
    """One of the four services. `service_runtime.rpc.server` calls these in the order they stand here."""

    @property
    def full_name(self) -> str:
        """The gRPC service's name, e.g. "dgx_music.storage.v1.StorageService": health and reflection go by it."""

    def add_to(self, server: grpc.aio.Server) -> None:
        """Puts the servicer on the server."""

    async def start(self) -> None:
        """Opens what it needs and begins its own work. Raises ServiceError where it can't run; nothing listens yet."""

    async def check(self) -> None:
        """Raises where something it needs does not answer: health says NOT_SERVING until a later check passes."""

    async def drain(self) -> None:
        """Takes no more work of its own and ends what would keep calls open for good; calls still run."""

    async def stop(self) -> None:
        """Gives back what it holds; no call runs any more."""


@runtime_checkable
class MetricsProvider(Protocol):
    """A service that has figures of its own for Prometheus."""

    def gauges(self) -> Iterable[Gauge]:
        """As they are now; called in a thread of the metrics' own."""
        ...
