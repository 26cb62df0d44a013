"""What the server expects of a service."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import grpc.aio

from service_runtime.observability.metrics import Reading


class Service(Protocol):
    """One of the four services. `service_runtime.rpc.server` calls its methods in the order given here."""

    @property
    def full_name(self) -> str:
        """The gRPC service's name for health and reflection, e.g. "dgx_music.storage.v1.StorageService"."""

    def add_to(self, server: grpc.aio.Server) -> None:
        """Registers the servicer with the server."""

    async def start(self) -> None:
        """Opens resources and starts background work, before the server listens. Raises ServiceError on failure."""

    async def check(self) -> None:
        """Raises if a dependency does not respond; health is then NOT_SERVING until a later check passes."""

    async def drain(self) -> None:
        """Stops taking background work and ends the calls that would never end by themselves; other calls still run."""

    async def stop(self) -> None:
        """Releases all resources. No call is running any more."""


@runtime_checkable
class MetricsProvider(Protocol):
    """A service with metrics that are read when Prometheus asks for them."""

    def read_metrics(self) -> Iterable[Reading]:
        """Returns the current values. Called on a thread of the metrics endpoint."""
        ...
