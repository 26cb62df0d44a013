"""Chroma: how strong each of the pitch classes is over time, which MusicGen-melody follows.

Source: audiocraft 1.3.0, `modules/chroma.py`, parameter for parameter. The filter bank is that of librosa 0.11,
`filters.chroma` (Ellis 2007, "Chroma feature analysis and synthesis"), which is not needed.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from generation_service.models.musicgen.checkpoints.prefixes.prefix_config import ChromaConfig

_A4_HZ = 440.0
_CENTRE_OCTAVE = 5.0
"""librosa's `ctroct`: the octave above A0's that counts most."""
_OCTAVE_WIDTH = 2.0
"""librosa's `octwidth`: the standard deviation of the weights, in octaves."""
_SEMITONES_TO_C = 3
"""The filters begin with A; the chroma with C."""
_MIN_NORM = 1e-6


class ChromaExtractor:
    """Computes chroma on the CPU, in fp32: less than 0.1 s for 30 s."""

    def __init__(self, config: ChromaConfig) -> None:
        self.config = config
        self._filters = chroma_filters(config.sample_rate_hz, config.fft_length, config.n_chroma)
        window = torch.hann_window(config.window_length)
        self._window = window
        self._scale = float(window.pow(2).sum().sqrt())

    @torch.inference_mode()
    def extract(self, samples: Tensor) -> Tensor:
        """samples: [n] at the configured rate → chroma: [frames, n_chroma]. Too few samples are centred in silence.

        Silence has no strongest pitch class; with `argmax`, it is the first one, as in audiocraft.
        """
        config = self.config
        missing = config.fft_length - len(samples)
        if missing > 0:
            samples = F.pad(samples, (missing // 2, missing - missing // 2))
        spectrum = torch.stft(
            samples,
            config.fft_length,
            config.hop_frames,
            config.window_length,
            self._window,
            center=True,
            pad_mode="reflect",
            return_complex=True,
        )
        power = (spectrum / self._scale).abs().pow(2)  # [bins, frames]
        chroma = F.normalize(self._filters @ power, p=float("inf"), dim=0, eps=_MIN_NORM).t()
        if not config.argmax:
            return chroma.contiguous()
        return F.one_hot(chroma.argmax(-1), config.n_chroma).to(chroma.dtype)


def chroma_filters(sample_rate_hz: int, fft_length: int, n_chroma: int) -> Tensor:
    """The weights of the spectrum's bins in each pitch class, fp32 [n_chroma, 1 + fft_length / 2], C first.

    A Gaussian bump a semitone wide around each pitch class (each bin's weights have the L2 norm 1), times one over
    the octaves.
    """
    frequencies = np.linspace(0, sample_rate_hz, fft_length, endpoint=False)[1:]
    pitches = n_chroma * np.log2(frequencies / (_A4_HZ / 16))
    pitches = np.concatenate([pitches[:1] - 1.5 * n_chroma, pitches])  # 0 Hz: 1.5 octaves below the first bin
    widths = np.concatenate([np.maximum(np.diff(pitches), 1.0), [1.0]])
    half = np.round(n_chroma / 2)
    distances = pitches - np.arange(n_chroma, dtype=np.float64)[:, None]
    distances = np.remainder(distances + half + 10 * n_chroma, n_chroma) - half
    weights = np.exp(-0.5 * (2 * distances / widths) ** 2)
    weights /= np.linalg.norm(weights, axis=0)
    weights *= np.exp(-0.5 * ((pitches / n_chroma - _CENTRE_OCTAVE) / _OCTAVE_WIDTH) ** 2)
    weights = np.roll(weights, -_SEMITONES_TO_C * (n_chroma // 12), axis=0)
    return torch.from_numpy(np.ascontiguousarray(weights[:, : 1 + fft_length // 2], np.float32))
