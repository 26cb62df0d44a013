"""AudioGen is MusicGen for sounds, at 16 kHz with other windows: codes equal to audiocraft's, alone and in a batch."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("transformers", reason="the text encoder is transformers'")

import torch

from generation_service.models.base import GenerationParameters
from generation_service.models.musicgen.loader import find_musicgen
from generation_service.models.musicgen.model import MusicGen
from tests.support.golden_codes import golden
from tests.support.musicgen_runs import load_with_short_window, run
from tests.support.sound_checkpoints import T5_LARGE, write_audiogen, write_t5_large
from tests.support.sound_codes import FILE, HOP, RATE_HZ, SOUNDS, WINDOWS, checksums_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    write_t5_large(Path(os.environ["HF_HOME"]))
    folder = tmp_path_factory.mktemp("models") / "audiogen"
    write_audiogen(folder)
    return folder


@pytest.fixture(scope="module")
def model(folder: Path, generator: str) -> MusicGen:
    return load_with_short_window(folder, generator)


@pytest.mark.parametrize(("name", "requests"), [("sounds", SOUNDS), ("windows", WINDOWS)])
def test_greedy_codes_equal_audiocraft(
    model: MusicGen, folder: Path, name: str, requests: tuple[tuple[str, int, int], ...]
) -> None:
    expected = golden(f"audiogen/{name}", checksums_of(folder, T5_LARGE), FILE)
    parameters = [
        (GenerationParameters(prompt, frames * HOP, 0, temperature=0), joins_at)
        for prompt, frames, joins_at in requests
    ]
    for (prompt, frames, _), codes, (state, samples) in zip(requests, expected, run(model, parameters), strict=True):
        assert np.array_equal(state.codes.select_frames(0, frames), codes), prompt
        assert samples.shape == (frames * HOP, 1)
        whole = model._clips.codec.decode(torch.from_numpy(state.codes.select_frames(0, frames)), 1)
        np.testing.assert_allclose(samples, whole, atol=1e-4)


def test_it_is_known_as_audiogen(folder: Path) -> None:
    found = find_musicgen(folder)
    assert found.info.description == "AudioGen, 3 layers of 64, mono."
    assert (found.info.sample_rate_hz, found.config.max_duration_seconds) == (RATE_HZ, 10)
    assert found.config.stride_share == 0.2, "2 of 10 seconds"
    assert replace(found.config, family="MusicGen").stride_share == 0.6, "18 of 30 seconds"
