"""A CUDA stream for encoders, beside those of the decode steps."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import torch


class SideStream:
    """Within `open`, work is queued on a stream of its own, so that it does not wait for steps, nor they for it.

    Results must be moved to the CPU within it. On the CPU, it does nothing.
    """

    def __init__(self, device: str | torch.device) -> None:
        """Later work waits for what has been queued so far, such as copies of weights."""
        self._stream: torch.cuda.Stream | None = None
        if torch.device(device).type == "cuda":
            self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            self._stream.wait_stream(torch.cuda.current_stream())

    def open(self) -> AbstractContextManager[object]:
        return torch.cuda.stream(self._stream) if self._stream is not None else contextlib.nullcontext()
