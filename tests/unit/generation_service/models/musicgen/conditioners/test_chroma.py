"""Chroma: the filters equal librosa's, which transformers has a copy of, and notes are found."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("transformers", reason="it has a copy of librosa's filters")

from dataclasses import replace

import torch

from generation_service.models.musicgen.checkpoints.prefixes.prefix_config import ChromaConfig
from generation_service.models.musicgen.conditioners.chroma import ChromaExtractor, chroma_filters

CONFIG = ChromaConfig(sample_rate_hz=32_000)
NOTES_HZ = {"C": 261.63, "E": 329.63, "A": 440.0}
PITCH_CLASS = {"C": 0, "E": 4, "A": 9}


def tone(frequency_hz: float, frames: int) -> torch.Tensor:
    return torch.sin(2 * torch.pi * frequency_hz * torch.arange(frames) / CONFIG.sample_rate_hz)


@pytest.mark.parametrize(("rate_hz", "fft_length"), [(32_000, 1 << 14), (16_000, 1 << 12), (44_100, 1 << 11)])
def test_filters_equal_those_of_librosa(rate_hz: int, fft_length: int) -> None:
    from transformers.audio_utils import chroma_filter_bank

    expected = chroma_filter_bank(sampling_rate=rate_hz, num_frequency_bins=fft_length, tuning=0, num_chroma=12)
    np.testing.assert_allclose(chroma_filters(rate_hz, fft_length, 12), expected, atol=1e-6)


@pytest.mark.parametrize("note", NOTES_HZ)
def test_note_is_found_in_every_frame(note: str) -> None:
    chroma = ChromaExtractor(CONFIG).extract(tone(NOTES_HZ[note], 50_000))
    assert chroma.shape == (CONFIG.count_frames(50_000), 12) == (13, 12)
    assert torch.equal(chroma.argmax(-1), torch.full((13,), PITCH_CLASS[note]))
    assert torch.equal(chroma.sum(-1), torch.ones(13))


def test_without_argmax_all_pitch_classes_are_relative_to_the_strongest() -> None:
    chord = sum(tone(frequency, 50_000) for frequency in NOTES_HZ.values())
    chroma = ChromaExtractor(replace(CONFIG, argmax=False)).extract(chord)
    assert torch.allclose(chroma.amax(-1), torch.ones(13))
    assert set(chroma[6].topk(3).indices.tolist()) == set(PITCH_CLASS.values())


def test_silence_and_too_few_samples_have_the_frames_of_one_window() -> None:
    for frames in (1, 5000, CONFIG.fft_length - 1):
        chroma = ChromaExtractor(CONFIG).extract(torch.zeros(frames))
        assert chroma.shape == (5, 12)
        assert torch.equal(chroma.argmax(-1), torch.zeros(5, dtype=torch.int64))


def test_too_few_samples_are_centred_in_silence() -> None:
    samples = torch.rand(5001, generator=torch.Generator().manual_seed(1))
    extractor, missing = ChromaExtractor(replace(CONFIG, argmax=False)), CONFIG.fft_length - len(samples)
    centred = torch.cat([torch.zeros(missing // 2), samples, torch.zeros(missing - missing // 2)])
    assert torch.equal(extractor.extract(samples), extractor.extract(centred))


def test_what_is_hardly_silence_is_not_amplified() -> None:
    """audiocraft's spectrum is relative to its window, so that a level as of 16-bit dither stays below the floor."""
    chroma = ChromaExtractor(replace(CONFIG, argmax=False)).extract(1e-6 * tone(NOTES_HZ["A"], 50_000))
    assert 0 < chroma.max() < 0.1
