"""How long the device works for a prefill, and how many pieces of one are read between two steps, so that the requests
that are running do not stall."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

import torch

MAX_PREFILL_SECONDS = 0.03
"""What the running requests wait for between two steps. With the step itself, they stall for less than 40 ms."""
MAX_PIECES = 64


class Stopwatch(Protocol):
    """Measures a stretch of the device's work, from its creation on."""

    def stop(self) -> None: ...

    def seconds(self) -> float | None:
        """The time between creation and stop; None if the device has not got to the stop yet."""
        ...


class HostStopwatch:
    """For a device that has done its work when a call returns."""

    def __init__(self) -> None:
        self._start = self._end = time.perf_counter()

    def stop(self) -> None:
        self._end = time.perf_counter()

    def seconds(self) -> float | None:
        return self._end - self._start


class CudaStopwatch:
    """Measures what the GPU does between two points of the current stream."""

    def __init__(self) -> None:
        self._start: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        self._end: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        self._start.record()

    def stop(self) -> None:
        self._end.record()

    def seconds(self) -> float | None:
        return self._start.elapsed_time(self._end) / 1000 if self._end.query() else None


class DeviceTimer:
    """Measures how long the device works for a call, one call at a time, and waits for none."""

    def __init__(self, start_stopwatch: Callable[[], Stopwatch]) -> None:
        self._start_stopwatch = start_stopwatch
        self._running: Stopwatch | None = None
        self._seconds = 0.0

    @property
    def seconds(self) -> float:
        """The latest measurement; 0 if there is none yet."""
        if self._running is not None and (seconds := self._running.seconds()) is not None:
            self._seconds, self._running = seconds, None
        return self._seconds

    def measure(self, call: Callable[[], None]) -> None:
        """Calls, and measures it unless an earlier call is still being measured."""
        stopwatch = self._start_stopwatch()
        call()
        stopwatch.stop()
        if self._running is None:
            self._running = stopwatch


class PrefillPace:
    """Starts with one piece at a time, and then takes as many as the last measurement allows.

    Only the number of pieces depends on the time: their size does not, so that the codes do not depend on it either.
    """

    def __init__(self, start_stopwatch: Callable[[], Stopwatch]) -> None:
        self._start_stopwatch = start_stopwatch
        self._running: tuple[Stopwatch, int] | None = None
        self._pieces = 1

    @property
    def pieces(self) -> int:
        """The number of pieces to read now."""
        if self._running is not None and (seconds := self._running[0].seconds()) is not None:
            per_piece = max(seconds / self._running[1], MAX_PREFILL_SECONDS / MAX_PIECES)
            self._pieces = max(1, int(MAX_PREFILL_SECONDS / per_piece))
            self._running = None
        return self._pieces

    def measure(self, pieces: int, read: Callable[[], None]) -> None:
        """Reads this many pieces by calling `read`, and measures how long the device takes for them."""
        stopwatch = self._start_stopwatch()
        read()
        stopwatch.stop()
        if self._running is None:
            self._running = stopwatch, pieces
