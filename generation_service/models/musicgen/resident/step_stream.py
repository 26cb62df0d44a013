"""The CUDA stream of the decode steps."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import torch
from torch import Tensor

STEP_PRIORITY = -1
"""Before 0, which the streams of the codec and of T5 have: when an SM becomes free, it takes a step's program first.
Graphs are captured and launched on the same stream, so it does not matter which of the two gives them the priority."""

P = ParamSpec("P")
R = TypeVar("R")


class StepStream:
    """A stream of its own with precedence on a GPU; on other devices it does nothing."""

    def __init__(self, device: torch.device) -> None:
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device, priority=STEP_PRIORITY)  # type: ignore[no-untyped-call]

    @contextlib.contextmanager
    def use(self) -> Iterator[None]:
        """Inside, work is launched on the stream, and no gradients are recorded."""
        on_stream = contextlib.nullcontext() if self._stream is None else torch.cuda.stream(self._stream)
        with torch.inference_mode(), on_stream:
            yield

    def follow_caller(self, *tensors: Tensor) -> None:
        """Has the stream wait for the caller's current stream, on which these tensors are ready, and keeps their memory
        until the stream has read them. Call it outside of `use`."""
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
            for tensor in tensors:
                tensor.record_stream(self._stream)


class HasStepStream(Protocol):
    """What `on_step_stream` needs."""

    @property
    def step_stream(self) -> StepStream: ...


Self = TypeVar("Self", bound=HasStepStream)


def on_step_stream(method: Callable[Concatenate[Self, P], R]) -> Callable[Concatenate[Self, P], R]:
    """Runs a method within `StepStream.use`."""

    @functools.wraps(method)
    def run(self: Self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self.step_stream.use():
            return method(self, *args, **kwargs)

    return run
