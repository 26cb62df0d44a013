"""Brings the results of steps to the host while the next steps run.

    host     launch 1 | launch 2 | wait 1, use 1, launch 3 | wait 2, use 2, launch 4 | …
    device            | step 1, copy 1 | step 2, copy 2 | step 3, copy 3 | …

Each step's results are copied into memory of their own that the device can write to (pinned memory), and an event marks
when that has happened.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

RUN_AHEAD = 2
"""Steps that may be launched before the results of the first are read: one runs, and the next waits behind it, so that
the device never waits for the host. More would only delay the requests that join."""

RowsT = TypeVar("RowsT")


class Event(Protocol):
    """What `torch.cuda.Event` has: a point in the order of the device's work."""

    def record(self) -> None:
        """Puts it behind the work that was launched so far."""
        ...

    def query(self) -> bool:
        """Whether the device has passed it."""
        ...

    def synchronize(self) -> None:
        """Waits until the device has passed it."""
        ...


class PassedEvent:
    """The event of a device that has done its work when a call returns, such as the CPU."""

    def record(self) -> None: ...

    def query(self) -> bool:
        return True

    def synchronize(self) -> None: ...


CopyResults = Callable[[Tensor, Tensor], Event]
"""Starts to copy results, the first argument, into memory of the host, the second."""


def copy_results(source: Tensor, target: Tensor) -> Event:
    """Starts the copy behind the work that was launched before, and returns its event."""
    target.copy_(source, non_blocking=True)
    if source.device.type == "cpu":
        return PassedEvent()
    event: Event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record()
    return event


@dataclass(frozen=True, slots=True)
class _LaunchedStep(Generic[RowsT]):
    rows: RowsT
    results: npt.NDArray[np.int64]
    event: Event


class StepPipeline(Generic[RowsT]):
    """The steps that were launched, and whose results are not read yet."""

    def __init__(
        self, max_rows: int, columns: int, device: torch.device, copy_results: CopyResults = copy_results
    ) -> None:
        """The results of a step are [rows, columns], with at most `max_rows` rows."""
        self._copy_results = copy_results
        is_pinned = device.type == "cuda"
        self._buffers = deque(
            torch.empty(max_rows, columns, dtype=torch.int64, pin_memory=is_pinned) for _ in range(RUN_AHEAD)
        )
        self._launched: deque[_LaunchedStep[RowsT]] = deque()

    @property
    def is_full(self) -> bool:
        """Whether the results of a step must be read before another one is launched."""
        return len(self._launched) == RUN_AHEAD

    def push(self, rows: RowsT, results: Tensor) -> None:
        """Adds the step that was just launched. results: its results on the device, [B, columns]."""
        assert not self.is_full
        buffer = self._buffers[0][: len(results)]
        self._buffers.rotate(-1)
        event = self._copy_results(results, buffer)
        self._launched.append(_LaunchedStep(rows, buffer.numpy(), event))

    def pop(self, *, wait: bool) -> list[tuple[RowsT, npt.NDArray[np.int64]]]:
        """Returns the rows and the results of the steps that have finished, in the order of their launch.

        Blocks for the first one if `wait`, or if the pipeline is full. The arrays are valid until the next `push`.
        """
        finished: list[tuple[RowsT, npt.NDArray[np.int64]]] = []
        while self._launched:
            step = self._launched[0]
            if (wait and not finished) or self.is_full:
                step.event.synchronize()
            elif not step.event.query():
                break
            finished.append((step.rows, step.results))
            self._launched.popleft()
        return finished
