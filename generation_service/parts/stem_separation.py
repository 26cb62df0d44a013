"""Separates the stems of finished audio of any model, by demucs, window by window."""

from __future__ import annotations

from typing import Final, Protocol

import numpy as np

from dgx_music.errors import FailedPrecondition
from generation_service.models.base import FloatArray
from service_runtime.optional_deps import install_extra_command

WINDOW_SECONDS: Final = 24.0
"""What is separated at a time: memory does not grow with the length of the audio."""
CONTEXT_SECONDS: Final = 1.0
"""What is separated on both sides of a window besides, and left out, because a network is unsure at the edges."""
OVERLAP_SECONDS: Final = 0.5
"""How long one window passes into the next."""


class Separator(Protocol):
    """Separates samples of its own rate."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of what it separates."""
        ...

    @property
    def sample_rate_hz(self) -> int:
        """The sample rate that it needs, and yields."""
        ...

    def separate(self, samples: FloatArray) -> FloatArray:
        """[n, 2] → [stems, n, 2]."""
        ...


class DemucsSeparator:
    """demucs's `htdemucs` on the CPU: the GPU belongs to the engine's process. Implements `Separator`."""

    def __init__(self) -> None:
        """Loads it; nothing is downloaded. Raises FailedPrecondition, which says what is missing and how to get it."""
        try:
            from generation_service.models.musicgen.conditioners.melody_separation import (
                MelodySeparator,
                SeparationUnavailable,
            )
        except ImportError as error:
            command = install_extra_command("musicgen,melody")
            problem = f"a library is not installed ({error}); install it on the server with: {command}"
            raise _unavailable(problem) from error
        try:
            self._network = MelodySeparator("cpu")
        except SeparationUnavailable as error:
            raise _unavailable(str(error)) from error
        self.names: tuple[str, ...] = self._network.names
        self.sample_rate_hz: int = self._network.sample_rate_hz

    def separate(self, samples: FloatArray) -> FloatArray:
        """[n, 2] → [stems, n, 2]."""
        import torch

        stems = self._network.separate_all(torch.from_numpy(np.ascontiguousarray(samples.T)))
        return np.ascontiguousarray(np.swapaxes(stems.numpy(), 1, 2))


def _unavailable(problem: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"the model generates no stems, and its audio can't be separated into any: {problem}",
        reason="STEM_SEPARATION_UNAVAILABLE",
    )


class StemSeparation:
    """Separates a stream of samples. Blocking; used by one thread at a time."""

    def __init__(self, separator: Separator) -> None:
        rate = separator.sample_rate_hz
        self._separator = separator
        self._window = round(WINDOW_SECONDS * rate)
        self._context = round(CONTEXT_SECONDS * rate)
        self._overlap = round(OVERLAP_SECONDS * rate)
        self._before = np.zeros((0, 2), np.float32)
        """What comes before `_samples`, for context."""
        self._samples = np.zeros((0, 2), np.float32)
        self._tail: FloatArray | None = None
        """The end of the last window, which passes into the next: [stems, overlap, 2]."""

    def feed(self, samples: FloatArray) -> FloatArray | None:
        """Adds samples, [n, 2], and returns the stems of a window, [stems, m, 2], if there is enough for one."""
        self._samples = np.concatenate([self._samples, samples])
        if len(self._samples) < self._window + self._overlap + self._context:
            return None
        return self._separate(self._window)

    def finish(self) -> FloatArray:
        """Returns the stems of the rest, [stems, m, 2]. In all there are as many frames as were fed."""
        return self._separate(len(self._samples))

    def _separate(self, count: int) -> FloatArray:
        before = len(self._before)
        stems = self._separator.separate(np.concatenate([self._before, self._samples]))
        stems = stems[:, before : before + min(len(self._samples), count + self._overlap)]
        if self._tail is not None:
            length = min(self._tail.shape[1], stems.shape[1])
            way = ((np.arange(length, dtype=np.float32) + np.float32(0.5)) / np.float32(max(1, length)))[:, None]
            stems[:, :length] = way * stems[:, :length] + (1.0 - way) * self._tail[:, :length]
        self._tail = stems[:, count:].copy()
        self._before = np.concatenate([self._before, self._samples[:count]])[-self._context :]
        self._samples = self._samples[count:]
        return stems[:, :count]
