"""MusicGen-melody and MusicGen-Style: codes equal to audiocraft's, and melody and style matter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("transformers", reason="the text encoder is transformers'")

from generation_service.models.base import GenerationParameters, StyleExcerpt
from generation_service.models.musicgen.loader import find_musicgen
from generation_service.models.musicgen.model import MusicGen
from tests.support.generator_runs import LateEvent
from tests.support.golden_codes import HOP
from tests.support.golden_prefixes import (
    MELODY_CODES,
    STYLE_CODES,
    STYLES,
    check_weights,
    melody_clip,
    stored,
    style_clip,
)
from tests.support.musicgen_runs import PIECE, load_model, run


def load(folder: Path, generator: str) -> MusicGen:
    options = {}
    if generator == "resident":
        options = {"prefill_positions": PIECE, "length_buckets": (32,), "copy_results": LateEvent}
    return load_model(find_musicgen(folder), generator, **options)


@pytest.mark.parametrize("name", ["melody", "stereo-melody"])
def test_greedy_codes_equal_audiocraft(name: str, generator: str, request: pytest.FixtureRequest, t5: None) -> None:
    folder = request.getfixturevalue(name.replace("-", "_"))
    check_weights(folder)
    model = load(folder, generator)
    requests = [
        (
            GenerationParameters(
                prompt,
                new * HOP,
                seed=0,
                temperature=0,
                melody=melody_clip(model.info.channels, melody) if melody else None,
            ),
            joins_at,
        )
        for prompt, new, melody, joins_at in MELODY_CODES
    ]
    for want, own, (state, samples) in zip(stored(f"{name}/codes"), MELODY_CODES, run(model, requests), strict=True):
        assert np.array_equal(state.codes.select_frames(0, state.codes.total_frames), want), own
        assert samples.shape == (own[1] * HOP, model.info.channels)


def test_greedy_codes_with_a_style_equal_audiocraft(style: Path, generator: str, t5: None) -> None:
    check_weights(style)
    model = load(style, generator)
    seconds, quantizers = STYLES[0]
    requests = [
        (
            GenerationParameters(
                prompt,
                new * HOP,
                seed=0,
                temperature=0,
                style=StyleExcerpt(style_clip(seconds), quantizers, text_guidance),
            ),
            index,
        )
        for index, (prompt, new, text_guidance) in enumerate(STYLE_CODES)
    ]
    for want, own, (state, _) in zip(stored("style/codes"), STYLE_CODES, run(model, requests), strict=True):
        assert np.array_equal(state.codes.select_frames(0, state.codes.total_frames), want), own
