"""Reverb: stereo convolution with a synthetic impulse response, block by block, without latency.

Uniformly partitioned overlap-save: the response is cut into blocks, each of which is applied in the frequency domain to
the input of that many blocks ago. A block costs one forward and two inverse FFTs of twice its size, whatever the length
of the response.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from generation_service.models.base import FloatArray

_REFLECTIONS_MS: Final = (7.1, 9.7, 13.3, 15.9, 19.3, 23.9, 29.1, 33.7, 41.9, 47.3)
_REFLECTION_LEVEL: Final = 2.2
Spectrum = npt.NDArray[np.complex64]


class Reverb:
    """Mono in, stereo out. Its memory is proportional to the length of the response."""

    def __init__(self, seconds: float, rate_hz: int, block: int) -> None:
        self._block = block
        self._response = _response(seconds, rate_hz, block)
        parts = self._response.shape[1] // 2
        self._history: Spectrum = np.zeros((parts, block + 1), np.complex64)
        self._previous = np.zeros(block, np.float32)
        self._newest = 0
        self._silent_blocks = parts + 1
        """How many blocks of silence came last."""

    def process(self, send: FloatArray) -> FloatArray | None:
        """Takes a block of input, [block], and returns the reverb of the same time, [2, block]; None for silence."""
        parts = len(self._history)
        self._silent_blocks = 0 if np.any(send) else self._silent_blocks + 1
        if self._silent_blocks > parts:
            if self._silent_blocks == parts + 1:
                self._history[:] = 0.0
                self._previous = send
            return None
        self._history[self._newest] = np.fft.rfft(np.concatenate((self._previous, send)))
        self._previous = send
        # Row j of the history is (newest - j) blocks old. A window into the doubled, reversed response aligns the two
        # without moving either.
        window = self._response[:, parts - self._newest : 2 * parts - self._newest]
        wet = np.fft.irfft(np.einsum("pb,cpb->cb", self._history, window), axis=1)
        self._newest = (self._newest + 1) % parts
        return wet[:, self._block :].astype(np.float32)


@lru_cache(maxsize=16)
def _response(seconds: float, rate_hz: int, block: int) -> Spectrum:
    """The partitions of the response, doubled and reversed: complex64 [2, 2 * parts, block + 1]."""
    parts = max(1, round(seconds * rate_hz / block))
    frames = parts * block
    random = np.random.default_rng(int(seconds * 1000))
    noise = random.standard_normal((2, frames), dtype=np.float32)
    time = np.arange(frames, dtype=np.float32) / np.float32(rate_hz)
    # Two bands, because air and walls absorb high frequencies about three times as fast as low ones.
    spectrum = np.fft.rfft(noise, axis=1)
    hz = np.fft.rfftfreq(frames, 1.0 / rate_hz).astype(np.float32) + np.float32(1.0)
    low = 1.0 / np.sqrt((1.0 + (hz / 1800.0) ** 4) * (1.0 + (220.0 / hz) ** 4))
    high = 1.0 / np.sqrt((1.0 + (hz / 7000.0) ** 4) * (1.0 + (1800.0 / hz) ** 4))
    slow = np.fft.irfft(spectrum * low, frames, axis=1) * np.exp(-time * np.float32(5.5 / seconds))
    fast = np.fft.irfft(spectrum * high, frames, axis=1) * np.exp(-time * np.float32(14.0 / seconds))
    response = slow + 0.8 * fast
    # A pre-delay of 12 ms, then a rise without a step; silent at the end.
    delay, rise, fall = int(0.012 * rate_hz), int(0.02 * rate_hz), frames // 4
    response = np.roll(response, delay, axis=1)
    response[:, :delay] = 0.0
    response[:, delay : delay + rise] *= np.linspace(0.0, 1.0, rise)
    response[:, -fall:] *= np.linspace(1.0, 0.0, fall)
    # The first reflections, of walls at different distances on the two sides, say how large the room is.
    for number, milliseconds in enumerate(_REFLECTIONS_MS):
        at = int(milliseconds * (0.6 + 0.25 * min(2.0, seconds)) * rate_hz / 1000.0)
        if at < frames:
            response[number % 2, at] += _REFLECTION_LEVEL * 0.86**number * np.max(np.abs(response))
    response /= np.sqrt(np.sum(response**2, axis=1, keepdims=True))
    pieces = np.zeros((2, parts, 2 * block), np.float32)
    pieces[:, :, :block] = response.reshape(2, parts, block)
    spectra = np.fft.rfft(pieces, axis=2).astype(np.complex64)
    order = -np.arange(2 * parts) % parts
    return np.ascontiguousarray(spectra[:, order])
