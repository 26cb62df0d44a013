"""The interface between the model and what generates its codes: the language model together with sampling.

There are two implementations. `EagerCodeGenerator` computes a step when it is launched, and `ResidentCodeGenerator`
only queues it on the device, so that the next step is launched before the codes of the last one are known. Which codes
a step reads is known to the generator alone: the model follows the progress of a request by counting steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from generation_service.models.base import GenerationParameters
from generation_service.models.musicgen.adapters.adapter_weights import AppliedAdapter
from generation_service.models.musicgen.checkpoints.config import LmConfig
from generation_service.models.musicgen.conditions import WindowConditions
from generation_service.models.musicgen.delay_pattern import Codes, DelayedCodes


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a request needs at most in any of its windows."""

    positions: int
    """Of a branch: those of the prefix, and one for each step."""
    tokens: int = 0
    """Of the longest text of any condition, the negative one included."""
    branches: int = 1
    has_negative: bool = False
    """Whether the negative condition may have a text."""
    longest_text: str = "prompt"
    """The field of the request that has the longest text."""

    @classmethod
    def for_windows(cls, steps: int, windows: Sequence[WindowConditions]) -> Reservation:
        """For windows of at most `steps` with these conditions."""
        texts = [len(each.text) for window in windows for each in window.all() if each.text is not None]
        return cls(
            positions=max(window.prefix_positions for window in windows) + steps,
            tokens=max(texts, default=0),
            branches=max(len(window.branches) for window in windows),
            has_negative=any(window.negative.text is not None for window in windows),
        )

    @property
    def rows(self) -> int:
        """The rows of the request in a batch: one for each branch, and one for the negative condition."""
        return self.branches + 1

    @property
    def texts(self) -> int:
        """The rows that may have a text."""
        return self.branches + self.has_negative


@dataclass(eq=False, slots=True)
class CodeRow:
    """One request in a code generator. Counts its steps within the current window."""

    parameters: GenerationParameters
    window: DelayedCodes = field(init=False)
    """The codes of the current window that are known on the host. Set by `begin_window`, as are the conditions."""
    conditions: WindowConditions = field(init=False)
    prefix_position: int = 0
    """The number of positions of the prefix that were read."""
    position: int = 0
    """The number of positions of the codes that were read, by steps that may still be running. Those of the prefix come
    before them and are not counted."""
    sample_count: int = 0
    """The number of steps that were launched for the request, in all windows."""
    is_open: bool = True
    adapters: tuple[AppliedAdapter, ...] = ()

    @property
    def needs_prefill(self) -> bool:
        """Whether the prefix or known codes are still to be read before a step can generate the next."""
        return self.prefix_position < self.conditions.prefix_positions or self.position < self.window.known_steps

    @property
    def can_step(self) -> bool:
        """Whether the window has a step that was not launched, and nothing is to be read before it."""
        return not self.needs_prefill and self.position < self.window.total_steps

    @property
    def weights(self) -> tuple[float, ...]:
        """The weights of the branches in the next step."""
        first, end = self.window.prompt_frames, self.window.frames
        return self.conditions.weights_at(min((self.position - first) / (end - first), 1.0))


RowT = TypeVar("RowT", bound=CodeRow)


@dataclass(frozen=True, slots=True)
class StepResult(Generic[RowT]):
    """What one step yielded."""

    rows: Sequence[RowT]
    """The rows of the step. Some may have been closed since it was launched."""
    codes: Codes
    """The sampled codes of each row, [B, K]."""
    is_finite: npt.NDArray[np.bool_]
    """[B], whether all logits of a row were finite. If not, its codes have no meaning."""


class KvMemory(Protocol):
    """The memory for the keys and values of all requests together."""

    @property
    def limit_bytes(self) -> int: ...

    @property
    def reserved_bytes(self) -> int: ...

    def size_bytes(self, reservation: Reservation) -> int:
        """The size of what a request reserves."""
        ...


class CodeGenerator(Protocol[RowT]):
    """Generates codes for any number of rows at once. All calls come from one thread.

    The codes of a row depend on its own request only, not on the other rows or on when its steps are launched.
    """

    @property
    def config(self) -> LmConfig: ...

    @property
    def memory(self) -> KvMemory: ...

    @property
    def open_seconds(self) -> float:
        """How long the device worked for the texts of a recent row; 0 if `begin_window` itself takes as long."""
        ...

    def open(
        self, parameters: GenerationParameters, reservation: Reservation, adapters: tuple[AppliedAdapter, ...] = ()
    ) -> RowT:
        """Reserves the memory for all windows of a request, which are computed with these adapters.

        Raises ResourceExhausted if other requests use the memory, InvalidArgument if a text is too long for the
        generator.
        """
        ...

    def begin_window(self, row: RowT, window: DelayedCodes, conditions: WindowConditions) -> None:
        """Starts the row at position 0 of its first or its next window. No step of the row may be running.

        Projects the texts, except those that the conditions in the same place had in the row's last window. They must
        be within the row's reservation.
        """
        ...

    def prefill(self, row: RowT) -> None:
        """Reads a part of the prefix or of the known codes of a row that needs it: not always all, so that the other
        rows do not wait for long."""
        ...

    def launch(self, rows: Sequence[RowT]) -> None:
        """Launches one step for rows that can step."""
        ...

    def collect(self, *, wait: bool) -> list[StepResult[RowT]]:
        """Returns the results of the steps that have finished, in the order of their launch.

        Blocks until there is a result if `wait`, or if many steps have been launched; but not if none is running.
        """
        ...

    def close(self, row: RowT) -> None:
        """Frees the row's memory. Steps of the row may still be running; their results are to be ignored."""
        ...
