"""MAGNeT behind the engine's interface: codes equal to audiocraft's, and results that don't depend on the batch."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="MAGNeT needs torch")
pytest.importorskip("transformers", reason="the text encoder is transformers'")

import torch

from dgx_music.errors import InvalidArgument, ServiceError
from generation_service.models.base import GenerationParameters
from generation_service.models.magnet import magnet_model
from generation_service.models.magnet.magnet_model import Magnet
from tests.support.golden_codes import clip, golden
from tests.support.magnet_runs import run
from tests.support.sound_checkpoints import STEPS
from tests.support.sound_codes import (
    FILE,
    MAGNET_CLIPS,
    MAGNET_PROMPTS,
    MAGNET_SAMPLES,
    MAGNETS,
    checksums_of,
)

SPANS = 48
"""Frames of codes in whole spans; the segment has 50."""


def parameters(model: Magnet, prompt: str, frames: int, seed: int = 0, **sampling: float) -> GenerationParameters:
    """Parameters for `frames` frames of codes with the model's defaults."""
    info = model.info
    defaults = GenerationParameters(
        prompt,
        frames * model._hop,
        seed,
        temperature=info.default_temperature,
        top_k=info.default_top_k,
        top_p=info.default_top_p,
        guidance_scale=info.default_guidance_scale,
    )
    return replace(defaults, **sampling)  # type: ignore[arg-type]


def test_greedy_codes_equal_audiocraft(model: Magnet, folder: Path) -> None:
    expected = golden(f"{folder.name}/greedy", checksums_of(folder, MAGNETS[folder.name]), FILE)
    requests = [(parameters(model, prompt, SPANS, temperature=0), joins_at) for prompt, joins_at in MAGNET_PROMPTS]
    for (prompt, _), codes, (state, samples) in zip(MAGNET_PROMPTS, expected, run(model, requests), strict=True):
        assert torch.equal(state.codes.codes, codes), prompt
        np.testing.assert_allclose(samples, model._clips.codec.decode(codes, 1), atol=1e-4)


def test_sampled_codes_equal_audiocraft_with_the_same_noise(model: Magnet, folder: Path) -> None:
    expected = golden(f"{folder.name}/sampled", checksums_of(folder, MAGNETS[folder.name]), FILE)
    requests = [
        (parameters(model, prompt, SPANS, seed, top_k=top_k, top_p=top_p), 2 * index)
        for index, (prompt, seed, top_k, top_p) in enumerate(MAGNET_SAMPLES)
    ]
    for request, codes, (state, _) in zip(MAGNET_SAMPLES, expected, run(model, requests), strict=True):
        assert torch.equal(state.codes.codes, codes), request


def test_continued_codes_equal_audiocraft(model: Magnet, folder: Path) -> None:
    expected = golden(f"{folder.name}/continued", checksums_of(folder, MAGNETS[folder.name]), FILE)
    for frames, codes in zip(MAGNET_CLIPS, expected, strict=True):
        audio = clip(1, frames * model._hop)
        request = replace(parameters(model, "dog barking", SPANS - frames, temperature=0), prompt_audio=audio)
        [(state, samples)] = run(model, [(request, 0)])
        assert torch.equal(state.codes.codes, codes), frames
        whole = model._clips.codec.decode(codes, 1)
        np.testing.assert_allclose(samples, whole[frames * model._hop :], atol=1e-4)


def test_audio_begins_with_the_kept_end_of_the_clip(model: Magnet) -> None:
    request = replace(parameters(model, "x", 20, seed=3), prompt_audio=clip(1, 20 * model._hop))
    kept = 3 * model._hop - 7
    longer = replace(request, frames=request.frames + kept, kept_prompt_frames=kept)
    [(_, samples), (_, with_end)] = run(model, [(request, 0), (longer, 0)])
    assert np.array_equal(with_end[kept:], samples)


def test_result_does_not_depend_on_the_batch(model: Magnet) -> None:
    requests = [
        (parameters(model, prompt, frames, seed), joins_at)
        for seed, (prompt, frames, joins_at) in enumerate((("x", 40, 0), ("lofi", 48, 0), ("", 7, 5), ("lofi", 50, 16)))
    ]
    results = run(model, requests)
    assert not np.array_equal(results[1][1], results[3][1][: len(results[1][1])]), "the seed matters"
    for (request, _), (state, samples) in zip(requests, results, strict=True):
        [(alone, expected)] = run(model, [(request, 0)])
        assert torch.equal(state.codes.codes, alone.codes.codes)
        assert np.array_equal(samples, expected)
        assert samples.shape == (request.frames, 1)


def test_shorter_request_gets_the_beginning_of_a_segment(model: Magnet) -> None:
    [(_, whole), (_, short)] = run(model, [(parameters(model, "x", 48), 0), (parameters(model, "x", 20), 0)])
    assert len(short) == 20 * model._hop
    np.testing.assert_allclose(short, whole[: len(short)], atol=1e-4)


def test_whole_segment_is_generated_although_it_is_no_whole_number_of_spans(model: Magnet) -> None:
    [(state, samples)] = run(model, [(parameters(model, "x", 50), 0)])
    assert (state.codes.frames, len(samples)) == (51, 50 * model._hop)
    assert not (state.codes.codes == model._masked.config.lm.card).any(), "no code is left masked"


def test_longer_request_is_refused(model: Magnet) -> None:
    request = replace(parameters(model, "x", 50), frames=50 * model._hop + 1)
    with pytest.raises(InvalidArgument, match=rf"this model generates segments of {50 * model._hop}"):
        model.prefill(request)


def test_continuation_needs_room_for_the_clip(model: Magnet) -> None:
    request = replace(parameters(model, "x", 46), prompt_audio=clip(1, 10 * model._hop))
    with pytest.raises(InvalidArgument, match=r"has to fit as well; request at most 0\.9 s"):
        model.prefill(request)
    with pytest.raises(InvalidArgument, match="are needed to continue it"):
        model.prefill(replace(request, prompt_audio=clip(1, model._hop - 1)))
    state = model.prefill(replace(request, frames=30 * model._hop, prompt_audio=clip(1, 90 * model._hop)))
    assert state.frames_to_drop == 20 * model._hop, "as much of the clip as the segment has room for"
    model.release(state)


def test_progress_grows_with_each_step(model: Magnet) -> None:
    state = model.prefill(parameters(model, "x", 48))
    seen, produced = [state.progress], 0
    while produced < state.frames:
        [block] = model.step([state])
        assert not isinstance(block, ServiceError)
        produced += len(block)
        seen.append(state.progress)
    model.release(state)
    assert (seen[0], seen[-1]) == (0, 1)
    assert all(first < second for first, second in pairwise(seen))
    assert len(seen) == 1 + sum(STEPS) + 1


def test_audio_comes_before_the_iterations_of_others(model: Magnet) -> None:
    """And a step without the state of a finished request, whose reader is slow, is for the others alone."""
    done, other = model.prefill(parameters(model, "x", 48)), model.prefill(parameters(model, "lofi", 48))
    for _ in range(sum(STEPS)):
        model.step([done])
    first, _ = model.step([done, other])
    assert not isinstance(first, ServiceError)
    assert (len(first) > 0, other.codes.steps) == (True, 0)
    model.step([other])
    assert other.codes.steps == 1
    model.release(done)
    model.release(other)


def test_slow_iterations_take_turns(model: Magnet, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step ends after a while, so that a cancelled request goes soon and the engine is not taken to hang."""
    monkeypatch.setattr(magnet_model, "MAX_STEP_SECONDS", 0)
    states = [model.prefill(parameters(model, "x", 48, seed)) for seed in range(3)]
    seen = []
    for number in range(7):
        model.step(states if number != 4 else states[1:])
        seen.append([state.codes.steps for state in states])
    assert seen == [[1, 0, 0], [1, 1, 0], [1, 1, 1], [2, 1, 1], [2, 2, 1], [2, 2, 2], [3, 2, 2]]
    for state in states:
        model.release(state)


def test_negative_prompt_guides_away_from_a_text(model: Magnet) -> None:
    """Away from the prompt itself, guidance has no effect."""
    plain, negative, away = (
        replace(parameters(model, "lofi", 48), negative_prompt=text, guidance_scale=scale)
        for text, scale in (("", 1), ("lofi", 10), ("dog barking", 10))
    )
    results = [state.codes.codes for state, _ in run(model, [(plain, 0), (negative, 0), (away, 0)])]
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_request_without_finite_logits_fails_alone(model: Magnet) -> None:
    bad, good = model.prefill(parameters(model, "x", 48)), model.prefill(parameters(model, "lofi", 48))
    bad.codes.text = torch.full((3, 64), float("nan"))
    failure, block = model.step([bad, good])
    assert isinstance(failure, ServiceError)
    assert failure.reason == "MODEL_OUTPUT"
    assert not isinstance(block, ServiceError)
    model.release(bad)
    model.release(good)
