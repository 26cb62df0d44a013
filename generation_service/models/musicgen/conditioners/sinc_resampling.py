"""Resampling by a windowed sinc, for models that were trained on audio resampled like this.

Source: julius 0.2.8, `resample.py`, ResampleFrac (Smith 2002, "Digital Audio Resampling"), which audiocraft and demucs
use.
"""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

_ZEROS = 24
"""Zero crossings of the sinc on each side."""
_ROLLOFF = 0.945
"""The cut-off, as a fraction of the lower Nyquist frequency."""


def resample_sinc(samples: Tensor, from_hz: int, to_hz: int) -> Tensor:
    """samples: [..., n] → [..., n to_hz / from_hz], rounded down."""
    if from_hz == to_hz:
        return samples
    divisor = math.gcd(from_hz, to_hz)
    old, new = from_hz // divisor, to_hz // divisor
    kernels, width = _build_kernels(old, new)
    flat = samples.reshape(-1, 1, samples.shape[-1])
    padded = F.pad(flat, (width, width + old), mode="replicate")
    phases = F.conv1d(padded, kernels.to(samples.device), stride=old)  # [B, new, blocks]
    resampled = phases.transpose(1, 2).reshape(*samples.shape[:-1], -1)
    return resampled[..., : samples.shape[-1] * new // old]


@functools.cache
def _build_kernels(old: int, new: int) -> tuple[Tensor, int]:
    """One filter for each phase of the output, [new, 1, taps], and the taps before its centre."""
    rate = min(old, new) * _ROLLOFF
    width = math.ceil(_ZEROS * old / rate)
    taps = torch.arange(-width, width + old).float()
    kernels = []
    for phase in range(new):
        time = ((-phase / new + taps / old) * rate).clamp(-_ZEROS, _ZEROS) * math.pi
        sinc = torch.where(time == 0, torch.ones_like(time), time.sin() / time)
        kernel = sinc * torch.cos(time / _ZEROS / 2) ** 2
        kernels.append(kernel / kernel.sum())
    return torch.stack(kernels).view(new, 1, -1), width
