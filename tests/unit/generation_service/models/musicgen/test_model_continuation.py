"""Going on from a clip: codes as audiocraft makes them, and of the sound only what is new."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("transformers", reason="the text encoder is transformers'")

import torch

from dgx_music.errors import InvalidArgument
from generation_service.models.base import FloatArray, GenerationParameters
from generation_service.models.musicgen.model import MusicGen
from tests.support.golden_codes import CONTINUATIONS, CONTINUED_PROMPT, HOP, golden, weights_in
from tests.support.golden_codes import clip as golden_clip
from tests.support.musicgen_runs import greedy, run


def clip(model: MusicGen, frames: int) -> FloatArray:
    return golden_clip(model.info.channels, frames)


def test_greedy_codes_equal_those_of_audiocraft(model: MusicGen, folder: Path) -> None:
    expected = golden(f"{folder.name}/continuations", weights_in(folder))
    clips = [clip(model, frames * HOP) for frames, *_ in CONTINUATIONS]
    plans = [
        (greedy(CONTINUED_PROMPT, new, own), joins)
        for own, (_, new, _, joins) in zip(clips, CONTINUATIONS, strict=True)
    ]
    for want, (_, new, read, _), (state, samples) in zip(expected, CONTINUATIONS, run(model, plans), strict=True):
        codes = state.codes.frames(0, state.codes.count)
        assert torch.equal(codes, want)
        assert samples.shape == (new * HOP, model.info.channels)
        whole = model._codec.decode(codes, model.info.channels)
        np.testing.assert_allclose(samples, whole[read * HOP :], atol=1e-4)


def test_what_comes_before_the_clips_end_does_not_matter_but_its_last_sample_does(model: MusicGen) -> None:
    """The clip's last sample is the last of a frame of codes: nothing is padded between it and the music."""
    samples = clip(model, 10 * HOP + 123)
    (state, whole), (_, cut) = run(model, [(greedy("lofi", 30, part), 0) for part in (samples, samples[123:])])
    assert np.array_equal(whole, cut)
    assert torch.equal(state.codes.frames(0, 10), model._codec.encode(samples[123:]))


def test_the_clip_matters_to_what_follows(model: MusicGen) -> None:
    samples = clip(model, 20 * HOP)
    asked = [GenerationParameters("lofi", 30 * HOP, 1, prompt_audio=own) for own in (samples, samples[::-1], None)]
    (_, one), (_, two), (_, none) = run(model, [(own, 0) for own in asked])
    assert not np.array_equal(one, two)
    assert not np.array_equal(one, none)


def test_it_sounds_the_same_alone_and_in_company(model: MusicGen) -> None:
    plans = [
        (GenerationParameters("lofi", new * HOP - 7, seed, prompt_audio=clip(model, frames * HOP + seed)), joins)
        for seed, (frames, new, _, joins) in enumerate(CONTINUATIONS)
    ]
    for (asked, _), (_, samples) in zip(plans, run(model, plans), strict=True):
        ((_, expected),) = run(model, [(asked, 0)])
        assert len(samples) == asked.frames
        assert np.array_equal(samples, expected)


def test_a_clip_too_short_to_be_continued_is_refused(model: MusicGen) -> None:
    assert model.info.can_continue
    with pytest.raises(InvalidArgument, match="639 frames") as refused:
        model.prefill(greedy("lofi", 10, clip(model, HOP - 1)))
    assert refused.value.field == "continuation.source_id"
    assert model.memory.reserved_bytes == 0
