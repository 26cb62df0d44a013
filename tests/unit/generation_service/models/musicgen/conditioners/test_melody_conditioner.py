"""The prefix of a melody equals audiocraft's, and follows the melody from window to window."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("transformers", reason="the text encoder is transformers'")

import torch

from generation_service.models.musicgen.checkpoints.checkpoint_reader import read_checkpoint
from generation_service.models.musicgen.checkpoints.config import parse_lm_config
from generation_service.models.musicgen.conditioners.melody_conditioner import MelodyConditioner, fit_length
from tests.support.golden_codes import HOP, WINDOW
from tests.support.golden_prefixes import MELODIES, check_weights, melody_clip, stored


def load(folder: Path, separator: Any = None) -> MelodyConditioner:
    checkpoint = read_checkpoint(folder)
    config = parse_lm_config(checkpoint)
    assert config.melody is not None
    return MelodyConditioner(checkpoint, config.melody, config.dim, separator=separator)


@pytest.fixture(scope="module")
def conditioner(melody: Path) -> MelodyConditioner:
    return load(melody)


@pytest.mark.parametrize("name", ["melody", "stereo-melody"])
def test_prefixes_equal_audiocraft(name: str, request: pytest.FixtureRequest, t5: None) -> None:
    folder = request.getfixturevalue(name.replace("-", "_"))
    check_weights(folder)
    own = load(folder)
    *expected, silence = stored(f"{name}/prefixes")
    for frames, want in zip(MELODIES, expected, strict=True):
        prefix = own.encode(own.separate(melody_clip(2 if name == "stereo-melody" else 1, frames)))
        torch.testing.assert_close(prefix, want, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(own.null, silence, atol=1e-5, rtol=1e-5)


def test_short_melody_is_repeated_and_a_long_one_cut() -> None:
    chroma = torch.arange(6.0).view(3, 2)
    assert torch.equal(fit_length(chroma, 7)[:, 0], torch.tensor([0.0, 2, 4, 0, 2, 4, 0]))
    assert torch.equal(fit_length(chroma, 2), chroma[:2])


def test_each_window_reads_its_part_of_the_melody(conditioner: MelodyConditioner) -> None:
    frames, clip = WINDOW * HOP, melody_clip(1, 2 * WINDOW)
    melody = conditioner.separate(clip)
    first, second, third = (conditioner.encode(melody, start * frames, frames) for start in range(3))
    assert torch.equal(first, conditioner.encode(conditioner.separate(clip[:frames])))
    assert torch.equal(second, conditioner.encode(conditioner.separate(clip[frames:])))
    assert torch.equal(third, first), "the melody is repeated"
    assert not torch.equal(first, second)


def test_part_before_the_start_is_the_end_of_the_melody(conditioner: MelodyConditioner) -> None:
    clip = melody_clip(1, WINDOW)
    shifted = conditioner.encode(conditioner.separate(clip), -20 * HOP, WINDOW * HOP)
    rolled = np.roll(clip, 20 * HOP, axis=0)
    assert torch.equal(shifted, conditioner.encode(conditioner.separate(rolled)))


def test_transformers_reads_no_more_than_its_chunk(melody: Path) -> None:
    clip, frames = melody_clip(1, 2 * WINDOW), 20_000
    whole, cut = load(melody), load(melody)
    cut.config = replace(cut.config, max_frames=frames)
    expected = whole.encode(whole.separate(clip[:frames]))
    assert torch.equal(cut.encode(cut.separate(clip)), expected)
    assert not torch.equal(whole.encode(whole.separate(clip)), expected)


def test_prepared_window_is_not_extracted_again(
    conditioner: MelodyConditioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    melody = conditioner.separate(melody_clip(1, 35))
    conditioner.prepare(melody, 100, 5000)
    monkeypatch.setattr(conditioner, "_extractor", None)
    assert conditioner.encode(conditioner.separate(melody_clip(1, 35)), 100, 5000).shape == conditioner.null.shape


class Halving:
    """Stands for demucs, which is optional: its melody is known."""

    name = "halving"
    calls = 0

    def separate(self, samples: torch.Tensor, sample_rate_hz: int) -> torch.Tensor:
        self.calls += 1
        return samples / 2


def test_melody_is_separated_once(melody: Path) -> None:
    separator, clip = Halving(), melody_clip(1, 33)
    conditioner = load(melody, separator)
    samples = [conditioner.separate(own) for own in (clip, clip.copy(), clip)]
    assert separator.calls == 1
    assert torch.equal(samples[0].samples, torch.from_numpy(clip[:, 0]) / 2)


def test_same_samples_in_other_channels_are_another_melody(conditioner: MelodyConditioner) -> None:
    stereo = melody_clip(2, WINDOW)
    assert conditioner.separate(stereo) is conditioner.separate(stereo.copy())
    assert conditioner.separate(stereo.reshape(-1, 1)) is not conditioner.separate(stereo)
