"""Requests in one batch, each as its pipeline would make it alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from dgx_music.errors import InvalidArgument, ServiceError
from generation_service.models.base import FloatArray, GenerationParameters, ReportsProgress
from generation_service.models.diffusion.diffusers_library import quiet_diffusers
from generation_service.models.diffusion.diffusion_model import DiffusionModel, DiffusionState
from generation_service.models.diffusion.pipeline_loader import find_pipeline, load_pipeline

RATE_HZ = 8000
TOLERANCE = 1e-5
LARGEST_SEED = 2**63 - 1

PLAIN = GenerationParameters("calm piano", 7200, seed=7, guidance_scale=6.0, steps=5)
UNGUIDED = GenerationParameters("fast drums!", 7200, seed=LARGEST_SEED, guidance_scale=1.0, steps=7)
SHORT = GenerationParameters("deep bass", 4001, seed=3, guidance_scale=3.0, steps=3)
NEGATIVE = GenerationParameters("violins", 7200, seed=11, guidance_scale=6.0, steps=5, negative_prompt="drums")
SUNG = GenerationParameters("violins", 7200, seed=11, guidance_scale=6.0, steps=5, lyrics="[chorus]\nla la la")

CASES = {
    "stable-audio": [PLAIN, UNGUIDED, SHORT, NEGATIVE],
    "stable-audio-3": [PLAIN, UNGUIDED, SHORT],
    "stable-audio-3-base": [PLAIN, SHORT, NEGATIVE],
    "ace-step": [PLAIN, UNGUIDED, SHORT, SUNG],
    "ace-step-turbo": [PLAIN, SUNG],
}
CLASSES: dict[str, Any] = {
    "stable-audio": diffusers.StableAudioPipeline,
    "stable-audio-3": diffusers.StableAudio3Pipeline,
    "ace-step": diffusers.AceStepPipeline,
}


def run(model: DiffusionModel, states: Sequence[DiffusionState]) -> list[FloatArray]:
    """Steps the states until all have delivered their audio."""
    blocks: list[list[FloatArray]] = [[] for _ in states]
    while any(sum(map(len, each)) < state.frames for each, state in zip(blocks, states, strict=True)):
        for each, block in zip(blocks, model.step(states), strict=True):
            assert isinstance(block, np.ndarray), block
            each.append(block)
    return [np.concatenate(each) for each in blocks]


def run_alone(model: DiffusionModel, parameters: GenerationParameters) -> FloatArray:
    return run(model, [model.prefill(parameters)])[0]


def run_pipeline(pipeline: Any, parameters: GenerationParameters) -> FloatArray:
    """What the library makes of a request, [n, channels]."""
    arguments: dict[str, Any] = {
        "prompt": parameters.prompt,
        "num_inference_steps": parameters.steps,
        "guidance_scale": parameters.guidance_scale,
        "generator": torch.Generator().manual_seed(parameters.seed),
    }
    seconds = parameters.frames / RATE_HZ
    if isinstance(pipeline, diffusers.AceStepPipeline):
        arguments |= {"lyrics": parameters.lyrics, "audio_duration": seconds}
    elif isinstance(pipeline, diffusers.StableAudioPipeline):
        arguments |= {"audio_end_in_s": seconds, "negative_prompt": parameters.negative_prompt or None}
    else:
        arguments |= {"duration": seconds, "negative_prompt": parameters.negative_prompt or None}
    with quiet_diffusers():
        audio: FloatArray = pipeline(**arguments).audios[0].T.cpu().numpy()
    return audio[: parameters.frames]


@pytest.mark.parametrize("family", CASES)
def test_requests_that_join_a_batch_become_what_the_pipeline_makes_of_each(
    load: Callable[[str], DiffusionModel], pipelines: Callable[[str], Path], family: str
) -> None:
    model, cases = load(family), CASES[family]
    with quiet_diffusers():
        pipeline = CLASSES[family.removesuffix("-base").removesuffix("-turbo")].from_pretrained(pipelines(family))
        pipeline.set_progress_bar_config(disable=True)
    expected = [run_pipeline(pipeline, parameters) for parameters in cases]
    states = [model.prefill(parameters) for parameters in cases[:2]]
    for _ in range(2):
        model.step(states)
    audio = run(model, [*states, *map(model.prefill, cases[2:])])
    for one, other in zip(audio, expected, strict=True):
        assert np.abs(one[: len(other)] - other).max() < TOLERANCE
        assert len(other) >= len(one) - 1  # The library rounds down.
    assert all(np.abs(one[:4000] - audio[0][:4000]).max() > 0.01 for one in audio[1:])


@pytest.mark.parametrize("family", CLASSES)
def test_half_precision_changes_the_audio_little(
    load: Callable[[str], DiffusionModel], pipelines: Callable[[str], Path], family: str
) -> None:
    """As on a GPU, except that there the products are its own."""
    found = replace(find_pipeline(pipelines(family)), precision="bf16")
    rough, fine = run_alone(load_pipeline(found), UNGUIDED), run_alone(load(family), UNGUIDED)
    assert 0.0 < np.abs(rough - fine).mean() < 0.2 * np.abs(fine).mean()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("family", CLASSES)
def test_a_gpu_makes_what_the_pipeline_makes_there(pipelines: Callable[[str], Path], family: str) -> None:
    model = load_pipeline(find_pipeline(pipelines(family), device="cuda", precision="fp32"))
    with quiet_diffusers():
        pipeline = CLASSES[family].from_pretrained(pipelines(family)).to("cuda")
        pipeline.set_progress_bar_config(disable=True)
    audio = run(model, [model.prefill(PLAIN), model.prefill(SHORT)])[0]
    expected = run_pipeline(pipeline, PLAIN)
    assert np.abs(audio[: len(expected)] - expected).max() < 1e-3


def test_the_texts_matter(load: Callable[[str], DiffusionModel]) -> None:
    for family, one, other in (
        ("stable-audio", PLAIN, GenerationParameters("loud piano", 7200, seed=7, guidance_scale=6.0, steps=5)),
        ("stable-audio-3-base", NEGATIVE, GenerationParameters("violins", 7200, 11, guidance_scale=6.0, steps=5)),
        ("ace-step", SUNG, GenerationParameters("violins", 7200, 11, guidance_scale=6.0, steps=5)),
    ):
        model = load(family)
        assert np.abs(run_alone(model, one) - run_alone(model, other)).max() > 1e-3


def test_audio_comes_in_pieces_after_the_last_step_and_progress_before_it(
    load: Callable[[str], DiffusionModel],
) -> None:
    model = load("stable-audio")
    state = model.prefill(PLAIN)
    assert isinstance(state, ReportsProgress)
    lengths, progress = [], [state.progress]
    while sum(lengths) < PLAIN.frames:
        (block,) = model.step([state])
        assert isinstance(block, np.ndarray)
        lengths.append(len(block))
        progress.append(state.progress)
    piece = round(0.3 * RATE_HZ / 128) * 128
    assert lengths == [0] * 5 + [piece, piece, PLAIN.frames - 2 * piece]
    assert progress == pytest.approx([number / 8 for number in range(9)])
    assert [len(block) for block in model.step([state])] == [0]


def test_a_request_whose_peak_decides_its_level_is_delivered_once_that_is_known(
    load: Callable[[str], DiffusionModel],
) -> None:
    model = load("ace-step-turbo")
    state = model.prefill(GenerationParameters("choir", 8000, seed=1, steps=2))
    assert [len(model.step([state])[0]) for _ in range(7)] == [0, 0, 0, 0, 0, 2560, 2560]
    assert state.progress == 1.0
    assert max(np.abs(block).max() for block in state.blocks) <= 10 ** (-1 / 20) + 1e-6


def test_requests_of_other_shapes_take_turns(load: Callable[[str], DiffusionModel]) -> None:
    model = load("ace-step")
    long, short = model.prefill(PLAIN), model.prefill(SHORT)
    steps = []
    for _ in range(6):
        model.step([long, short])
        steps.append((long.denoising.steps_done, short.denoising.steps_done))
    assert steps == [(1, 0), (1, 1), (2, 1), (2, 2), (3, 2), (3, 3)]


def test_no_call_of_the_transformer_is_larger_than_its_limit(
    load: Callable[[str], DiffusionModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load("stable-audio")
    # Two rows of 61 each for a guided request.
    monkeypatch.setattr(model, "_tokens_per_call", 2 * 2 * 61)
    states = [model.prefill(PLAIN) for _ in range(5)]
    for expected in ([1, 1, 0, 0, 0], [1, 1, 1, 1, 0], [2, 1, 1, 1, 1], [2, 2, 2, 1, 1]):
        model.step(states)
        assert [state.denoising.steps_done for state in states] == expected
    monkeypatch.setattr(model, "_tokens_per_call", 1)  # Less than any request needs.
    model.step(states)
    assert [state.denoising.steps_done for state in states] == [2, 2, 2, 2, 1]


def test_a_released_request_costs_no_further_step(load: Callable[[str], DiffusionModel]) -> None:
    model = load("stable-audio")
    kept, cancelled = model.prefill(PLAIN), model.prefill(UNGUIDED)
    model.step([kept, cancelled])
    model.release(cancelled)
    (audio,) = run(model, [kept])
    assert np.abs(audio - run_alone(model, PLAIN)).max() < TOLERANCE


def test_a_request_that_goes_wrong_fails_alone(load: Callable[[str], DiffusionModel]) -> None:
    model = load("stable-audio")
    good, bad = model.prefill(SHORT), model.prefill(SHORT)
    bad.denoising.latents[..., 3] = torch.nan
    results = [model.step([good, bad]) for _ in range(8)]
    errors = [result[1] for result in results if isinstance(result[1], ServiceError)]
    assert [error.reason for error in errors[:1]] == ["MODEL_OUTPUT"]
    blocks = [result[0] for result in results if isinstance(result[0], np.ndarray)]
    assert np.abs(np.concatenate(blocks) - run_alone(model, SHORT)).max() < TOLERANCE


def test_a_duration_beyond_the_model_is_refused(load: Callable[[str], DiffusionModel]) -> None:
    with pytest.raises(InvalidArgument, match="duration_seconds: 8000 frames; this model generates at most 7680"):
        load("stable-audio").prefill(GenerationParameters("a", 8000, seed=1))


def test_the_number_of_steps_is_the_models_unless_it_is_given(load: Callable[[str], DiffusionModel]) -> None:
    for family, steps in (("stable-audio", 100), ("stable-audio-3", 8), ("ace-step", 50), ("ace-step-turbo", 8)):
        state = load(family).prefill(GenerationParameters("a", 1000, seed=1))
        assert state.metadata == {"denoising_steps": steps}


def test_a_prompt_that_is_too_long_says_how_much_of_it_is_ignored(load: Callable[[str], DiffusionModel]) -> None:
    state = load("stable-audio").prefill(GenerationParameters("x" * 70, 1000, seed=1, steps=1))
    # 72 tokens: the one that starts a word, 70 letters, and the end.
    assert state.metadata == {"denoising_steps": 1, "prompt_tokens_ignored": 72 - 64}
