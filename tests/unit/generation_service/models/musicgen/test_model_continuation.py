"""Continuing a clip: codes equal to audiocraft's, and only the new audio is returned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("transformers", reason="the text encoder is transformers'")

import torch

from dgx_music.errors import InvalidArgument
from generation_service.models.base import Capability, FloatArray, GenerationParameters
from generation_service.models.musicgen.model import MusicGen
from tests.support.golden_codes import CONTINUATIONS, CONTINUED_PROMPT, HOP, checksums_of, golden
from tests.support.golden_codes import clip as golden_clip
from tests.support.musicgen_runs import EACH_GENERATOR, greedy, run


def clip(model: MusicGen, frames: int) -> FloatArray:
    return golden_clip(model.info.channels, frames)


def test_greedy_codes_equal_audiocraft(model: MusicGen, folder: Path) -> None:
    expected = golden(f"{folder.name}/continuations", checksums_of(folder))
    clips = [clip(model, frames * HOP) for frames, *_ in CONTINUATIONS]
    requests = [
        (greedy(CONTINUED_PROMPT, new, own), joins_at)
        for own, (_, new, _, joins_at) in zip(clips, CONTINUATIONS, strict=True)
    ]
    for want, (_, new, read, _), (state, samples) in zip(expected, CONTINUATIONS, run(model, requests), strict=True):
        codes = state.codes.select_frames(0, state.codes.total_frames)
        assert np.array_equal(codes, want)
        assert samples.shape == (new * HOP, model.info.channels)
        whole = model._clips.codec.decode(torch.from_numpy(codes), model.info.channels)
        np.testing.assert_allclose(samples, whole[read * HOP :], atol=1e-4)


@EACH_GENERATOR
def test_only_whole_code_frames_at_the_end_of_the_clip_are_read(model: MusicGen) -> None:
    """The clip's last sample is the last of a frame of codes: nothing is padded between clip and new audio."""
    samples = clip(model, 10 * HOP + 123)
    (state, whole), (_, cut) = run(model, [(greedy("lofi", 30, part), 0) for part in (samples, samples[123:])])
    assert np.array_equal(whole, cut)
    assert np.array_equal(state.codes.select_frames(0, 10), model._clips.codec.encode(samples[123:]))


@EACH_GENERATOR
def test_audio_depends_on_the_clip(model: MusicGen) -> None:
    samples = clip(model, 20 * HOP)
    requests = [GenerationParameters("lofi", 30 * HOP, 1, prompt_audio=own) for own in (samples, samples[::-1], None)]
    (_, one), (_, two), (_, none) = run(model, [(own, 0) for own in requests])
    assert not np.array_equal(one, two)
    assert not np.array_equal(one, none)


@EACH_GENERATOR
def test_continuation_does_not_depend_on_the_batch(model: MusicGen) -> None:
    requests = [
        (GenerationParameters("lofi", new * HOP - 7, seed, prompt_audio=clip(model, frames * HOP + seed)), joins_at)
        for seed, (frames, new, _, joins_at) in enumerate(CONTINUATIONS)
    ]
    for (parameters, _), (_, samples) in zip(requests, run(model, requests), strict=True):
        ((_, expected),) = run(model, [(parameters, 0)])
        assert len(samples) == parameters.frames
        assert np.array_equal(samples, expected)


@EACH_GENERATOR
def test_prefill_finds_what_was_encoded_ahead(model: MusicGen, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [greedy("lofi", 30, own) for own in (clip(model, 90 * HOP), clip(model, 20 * HOP)[::-1])]
    model.encode_prompts([*requests, greedy("lofi", 30)])

    def encode_again(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(model._clips.codec, "encode", encode_again)
    monkeypatch.setattr(model._conditions.texts, "_encode", encode_again)
    for parameters in requests:
        model.release(model.prefill(replace(parameters, seed=7)))
    with pytest.raises(AssertionError):
        model.prefill(greedy("lofi", 30, clip(model, 80 * HOP)))
    assert model.memory.reserved_bytes == 0


@EACH_GENERATOR
def test_clip_shorter_than_a_code_frame_is_rejected(model: MusicGen) -> None:
    assert Capability.CONTINUATION in model.info.capabilities
    with pytest.raises(InvalidArgument, match="it has 639 frames of audio; at least 640 are needed") as error:
        model.prefill(greedy("lofi", 10, clip(model, HOP - 1)))
    assert error.value.field == "continuation.source_id"
    assert model.memory.reserved_bytes == 0


@EACH_GENERATOR
def test_end_of_the_clip_is_repeated_before_the_new_audio_if_it_is_to_be_joined(model: MusicGen) -> None:
    kept, new = 2 * HOP + 17, 30 * HOP
    plain = greedy("lofi", 30, clip(model, 20 * HOP))
    joined = replace(plain, frames=kept + new, kept_prompt_frames=kept)
    (state, continued), (_, both) = run(model, [(plain, 0), (joined, 0)])
    assert len(both) == kept + new
    assert np.array_equal(both[kept:], continued)
    whole = model._clips.codec.decode(torch.from_numpy(state.codes.select_frames(0, 50)), model.info.channels)
    np.testing.assert_allclose(both[:kept], whole[20 * HOP - kept : 20 * HOP], atol=1e-4)
