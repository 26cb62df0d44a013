"""What Prometheus can see of a process: instruments, which code updates as it goes, and readings, taken at a scrape.

Names follow https://prometheus.io/docs/practices/naming/: base units, a suffix for the unit, `_total` for counters.
Unless `metrics_endpoint` is active, updating an instrument does nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

SECONDS_BUCKETS = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
    1800.0,
)
"""From a call that reads one row to a stream that lasts as long as the music."""


class Instrument:
    """A metric with all its label values. `attach` and `detach` are for `metrics_endpoint`."""

    declared: ClassVar[list[Instrument]] = []
    """All instruments of the modules that have been imported."""

    def __init__(self, name: str, help: str, labels: Sequence[str] = ()) -> None:
        """`name` and `help` are as Prometheus shows them; `labels` are the names of the labels."""
        self.name, self.help, self.labels = name, help, tuple(labels)
        self._metrics: list[Any] = []
        """The metrics of prometheus_client: one for each active endpoint."""
        self._children: dict[tuple[str, ...], list[Any]] = {}
        """Label values → what is updated."""
        self.declared.append(self)

    @property
    def is_shown(self) -> bool:
        """Whether an endpoint is active, so that updates have an effect."""
        return bool(self._metrics)

    def attach(self, metric: Any) -> None:
        """From now on, updates this metric of prometheus_client too."""
        self._metrics.append(metric)
        self._children = {}

    def detach(self, metric: Any) -> None:
        """Stops updating it."""
        self._metrics.remove(metric)
        self._children = {}

    def bind(self, *labels: str) -> Sequence[Any]:
        """Returns the metrics of prometheus_client that are shown now for these label values, for code that updates
        them often."""
        return self._find_children(labels)

    def _find_children(self, labels: tuple[str, ...]) -> Sequence[Any]:
        if not self._metrics:
            return ()
        children = self._children.get(labels)
        if children is None:
            children = [metric.labels(*labels) if labels else metric for metric in self._metrics]
            self._children[labels] = children
        return children


class Counter(Instrument):
    """Only grows. Its name ends in `_total`."""

    def inc(self, *labels: str, by: float = 1.0) -> None:
        """Adds to the count of these label values, which stand in the order of `labels`."""
        for child in self._find_children(labels):
            child.inc(by)


class Gauge(Instrument):
    """Goes up and down. Code updates what `bind` returns."""


class Histogram(Instrument):
    """Counts observations by their size."""

    def __init__(
        self, name: str, help: str, labels: Sequence[str] = (), buckets: Sequence[float] = SECONDS_BUCKETS
    ) -> None:
        """`buckets` are the upper bounds, ascending, without infinity."""
        super().__init__(name, help, labels)
        self.buckets = tuple(buckets)

    def observe(self, value: float, *labels: str) -> None:
        """Counts one observation, in the unit of the name."""
        for child in self._find_children(labels):
            child.observe(value)

    @contextmanager
    def time(self, *labels: str) -> Iterator[None]:
        """Observes how many seconds the block takes, however it ends."""
        started_at = time.monotonic()
        try:
            yield
        finally:
            self.observe(time.monotonic() - started_at, *labels)


@dataclass(slots=True)
class Distribution:
    """A histogram that code keeps itself, e.g. in a process without an endpoint, and that is shown as a reading."""

    buckets: tuple[float, ...]
    """Upper bounds, ascending, without infinity."""
    counts: list[int] = field(default_factory=list)
    """The number of observations in each bucket and not in those before; the last is beyond all buckets."""
    sum: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.buckets) + 1)

    def observe(self, value: float) -> None:
        """Counts one observation."""
        index = 0
        for bound in self.buckets:
            if value <= bound:
                break
            index += 1
        self.counts[index] += 1
        self.sum += value

    def copy(self) -> Distribution:
        """Returns what has been counted up to now."""
        return Distribution(self.buckets, self.counts.copy(), self.sum)

    def cumulative(self) -> list[tuple[str, float]]:
        """Returns Prometheus' buckets: each upper bound as text, and the number of observations up to it."""
        total, pairs = 0, []
        for bound, count in zip((*self.buckets, math.inf), self.counts, strict=True):
            total += count
            pairs.append(("+Inf" if bound == math.inf else str(bound), float(total)))
        return pairs


class Reading(NamedTuple):
    """A value that is read at each scrape: a counter if its name ends in `_total`, a histogram if it is a
    Distribution, else a gauge."""

    name: str
    help: str
    value: float | Distribution
    labels: Mapping[str, str] = MappingProxyType({})
    """Tells apart the values of one name, which come one after another and have the same label names."""
