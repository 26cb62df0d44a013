"""The prefix of a melody equals audiocraft's, and follows the melody from window to window."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("transformers", reason="the text encoder is transformers'")

from generation_service.models.musicgen.checkpoints.checkpoint_reader import read_checkpoint
from generation_service.models.musicgen.checkpoints.config import parse_lm_config
from generation_service.models.musicgen.conditioners.melody_conditioner import MelodyConditioner, fit_length, pad_text
from tests.support.golden_codes import HOP, WINDOW
from tests.support.golden_prefixes import MELODIES, check_weights, melody_clip, stored
from tests.support.prefix_checkpoints import CHROMA_LENGTH


def load(folder: Path) -> MelodyConditioner:
    checkpoint = read_checkpoint(folder)
    config = parse_lm_config(checkpoint)
    assert config.melody is not None
    return MelodyConditioner(checkpoint, config.melody, config.dim)


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
        (prefix,) = own.encode(melody_clip(2 if name == "stereo-melody" else 1, frames))
        torch.testing.assert_close(prefix, want, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(own.null, silence, atol=1e-5, rtol=1e-5)


def test_short_melody_is_repeated_and_a_long_one_cut() -> None:
    chroma = torch.arange(6.0).view(3, 2)
    assert torch.equal(fit_length(chroma, 7)[:, 0], torch.tensor([0.0, 2, 4, 0, 2, 4, 0]))
    assert torch.equal(fit_length(chroma, 2), chroma[:2])


def test_each_window_reads_its_part_of_the_melody(conditioner: MelodyConditioner) -> None:
    melody, frames = melody_clip(1, 2 * WINDOW), WINDOW * HOP
    first, second, third = conditioner.encode(melody, [0, frames, 2 * frames], frames)
    assert torch.equal(first, conditioner.encode(melody[:frames])[0])
    assert torch.equal(second, conditioner.encode(melody[frames:])[0])
    assert torch.equal(third, first), "the melody is repeated"
    assert not torch.equal(first, second)


def test_part_before_the_start_is_the_end_of_the_melody(conditioner: MelodyConditioner) -> None:
    melody, frames = melody_clip(1, WINDOW), WINDOW * HOP
    (shifted,) = conditioner.encode(melody, [-20 * HOP], frames)
    assert torch.equal(shifted, conditioner.encode(np.roll(melody, 20 * HOP, axis=0))[0])


def test_prepared_melody_is_found(conditioner: MelodyConditioner, monkeypatch: pytest.MonkeyPatch) -> None:
    melody = melody_clip(1, 33)
    conditioner.prepare(melody)
    monkeypatch.setattr(conditioner, "_extract", None)
    assert conditioner.encode(melody.copy())[0].shape == (CHROMA_LENGTH, conditioner.null.shape[1])


def test_text_is_padded_by_zeros() -> None:
    text = torch.ones(2, 3)
    padded = pad_text(text, 4, 3, torch.device("cpu"))
    assert torch.equal(padded[:2], text)
    assert not padded[2:].any()
    assert torch.equal(pad_text(None, 4, 3, torch.device("cpu")), torch.zeros(4, 3))
