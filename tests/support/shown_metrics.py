"""`ShownMetric`: what an instrument updates while it is attached, and `shown`, which attaches one for a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from service_runtime.observability.metrics import Instrument


class ShownMetric:
    """Has the methods of prometheus_client's metrics that instruments call, and keeps what it is given."""

    def __init__(self) -> None:
        self.updates: dict[tuple[str, ...], list[float]] = {}
        """Label values → the amounts or observations, in their order."""
        self._values: tuple[str, ...] = ()

    def labels(self, *values: str) -> ShownMetric:
        child = ShownMetric()
        child.updates, child._values = self.updates, values
        return child

    def dec(self, amount: float = 1.0) -> None:
        self.inc(-amount)

    def inc(self, amount: float = 1.0) -> None:
        self.updates.setdefault(self._values, []).append(amount)

    def observe(self, value: float) -> None:
        self.inc(value)


@contextmanager
def shown(instrument: Instrument) -> Iterator[dict[tuple[str, ...], list[float]]]:
    """Yields the updates of the instrument within the block."""
    metric = ShownMetric()
    instrument.attach(metric)
    try:
        yield metric.updates
    finally:
        instrument.detach(metric)
