"""Resampling keeps what is below the cut-off, and equals julius where that is installed."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("torch", reason="MusicGen needs torch")

import torch

from generation_service.models.musicgen.conditioners.sinc_resampling import resample_sinc

RATES = [(32_000, 24_000), (32_000, 44_100), (44_100, 32_000), (16_000, 32_000)]


@pytest.mark.parametrize(("from_hz", "to_hz"), RATES)
def test_equals_julius(from_hz: int, to_hz: int) -> None:
    julius = pytest.importorskip("julius", reason="the reference is julius")
    samples = torch.randn(2, 10_003, generator=torch.Generator().manual_seed(0))
    assert torch.equal(resample_sinc(samples, from_hz, to_hz), julius.resample_frac(samples, from_hz, to_hz))


@pytest.mark.parametrize(("from_hz", "to_hz"), RATES)
def test_tone_stays_the_same_tone(from_hz: int, to_hz: int) -> None:
    def tone(rate: int, frames: int) -> torch.Tensor:
        return torch.sin(2 * math.pi * 1000 * torch.arange(frames, dtype=torch.float64) / rate).float()

    resampled = resample_sinc(tone(from_hz, from_hz), from_hz, to_hz)
    assert resampled.shape == (to_hz,)
    middle = slice(to_hz // 10, -to_hz // 10)
    torch.testing.assert_close(resampled[middle], tone(to_hz, to_hz)[middle], atol=2e-3, rtol=0)


def test_what_the_lower_rate_cannot_hold_is_removed() -> None:
    samples = torch.sin(2 * math.pi * 15_000 * torch.arange(32_000, dtype=torch.float64) / 32_000).float()
    assert resample_sinc(samples, 32_000, 24_000)[1000:-1000].abs().max() < 1e-3


def test_same_rate_changes_nothing() -> None:
    samples = torch.randn(100)
    assert resample_sinc(samples, 32_000, 32_000) is samples
