"""Requests that are stopped at any step, and go on: the samples are those of requests that were never stopped."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("transformers", reason="the text encoder is transformers'")

from dgx_music.errors import ServiceError
from generation_service.models.base import FloatArray, GenerationParameters, PromptSection, WeightedPrompt
from generation_service.models.musicgen.model import MusicGen
from tests.support.golden_codes import HOP, WINDOW
from tests.support.golden_codes import clip as golden_clip
from tests.support.musicgen_runs import EACH_GENERATOR, run, step_all

LONG = GenerationParameters("calm piano", (WINDOW + 30) * HOP - 77, seed=5)
"""Of two windows, and sampled."""
STEPS = WINDOW + 20
"""A step in its second window."""


def requests(model: MusicGen) -> list[GenerationParameters]:
    section = PromptSection(25 * HOP, 60 * HOP, "lofi")
    clip = golden_clip(model.info.channels, 20 * HOP + 13)
    return [
        LONG,
        replace(LONG, prompt="80s synthwave", frames=30 * HOP, top_p=0.9, seed=6),
        replace(LONG, prompt_audio=clip, frames=(WINDOW + 9) * HOP, kept_prompt_frames=7),
        replace(LONG, sections=(section,), frames=80 * HOP, negative_prompt="drums"),
        replace(LONG, further_prompts=(WeightedPrompt("strings", 0.5),), frames=40 * HOP),
    ]


def run_stopped(model: MusicGen, parameters: GenerationParameters, stops: list[int]) -> tuple[FloatArray, int]:
    """Runs a request that is stopped after each of these numbers of steps. Returns its samples, and the steps that the
    last attempt took."""
    for steps in stops:
        state = model.prefill(parameters)
        for _ in range(steps):
            step_all(model, [state])
        parameters = replace(parameters, checkpoint=model.save_checkpoint(state))
        model.release(state)
    state, count, blocks = model.prefill(parameters), 0, []
    while sum(map(len, blocks)) < parameters.frames:
        blocks += step_all(model, [state])
        count += 1
    model.release(state)
    assert model.memory.reserved_bytes == 0
    return np.concatenate(blocks), count


@EACH_GENERATOR
@pytest.mark.parametrize("number", [0, *(pytest.param(number, marks=pytest.mark.slow) for number in range(1, 5))])
def test_samples_are_those_of_an_undisturbed_run(model: MusicGen, number: int) -> None:
    parameters = requests(model)[number]
    ((_, expected),) = run(model, [(parameters, 0)])
    samples, _ = run_stopped(model, parameters, [0, 17, parameters.frames // HOP - 2])
    assert np.array_equal(samples, expected)


@pytest.mark.slow
@EACH_GENERATOR
def test_known_codes_are_read_and_decoded_in_pieces(model: MusicGen) -> None:
    """A step of the window costs one; what was done before it costs a few for all of it."""
    _, undisturbed = run_stopped(model, LONG, [])
    _, resumed = run_stopped(model, LONG, [STEPS])
    assert resumed < undisturbed - STEPS / 2


@EACH_GENERATOR
def test_checkpoint_is_small(model: MusicGen) -> None:
    state = model.prefill(LONG)
    for _ in range(STEPS):
        model.step([state])
    codebooks = model._generator.config.n_q
    assert len(model.save_checkpoint(state)) <= 16 + 2 * codebooks * 2 * WINDOW
    model.release(state)


@EACH_GENERATOR
def test_request_that_has_failed_has_no_checkpoint(model: MusicGen) -> None:
    state = model.prefill(LONG)
    state.failure = ServiceError("it failed", reason="FAULT")
    assert model.save_checkpoint(state) == b""
    model.release(state)
