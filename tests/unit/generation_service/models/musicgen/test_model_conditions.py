"""Pieces guided by several texts, away from one, and by other texts in their sections."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("transformers", reason="the text encoder is transformers'")

from generation_service.models.base import GenerationParameters, PromptSection, WeightedPrompt
from generation_service.models.musicgen.conditions import Branch, Condition, WindowConditions
from generation_service.models.musicgen.delay_pattern import Codes
from generation_service.models.musicgen.model import MusicGen
from tests.support.golden_codes import HOP, NEGATIVES, STRIDE, WINDOW, checksums_of, golden
from tests.support.musicgen_runs import EACH_GENERATOR, greedy, run, step_all
from tests.support.plain_language_model import PlainLanguageModel

GUIDANCE_SCALE = 3.0
NEGATIVE = "distorted, noisy, out of tune and far too loud"
FURTHER = (WeightedPrompt("80s synthwave", 2.0), WeightedPrompt("lofi", 0.5))
SECTIONS = (PromptSection(0, 40 * HOP, "calm piano"), PromptSection(40 * HOP, 100 * HOP, "drop, drums"))


@pytest.fixture(scope="module")
def plain(folder: Path) -> PlainLanguageModel:
    return PlainLanguageModel(folder)


def codes_of(model: MusicGen, parameters: GenerationParameters) -> Codes:
    ((state, samples),) = run(model, [(parameters, 0)])
    assert len(samples) == parameters.frames
    return state.codes.select_frames(0, state.codes.total_frames)


def text(model: MusicGen, prompt: str) -> Condition:
    return Condition(model._conditions.texts.encode(prompt))


def test_greedy_codes_with_a_negative_prompt_equal_audiocraft(model: MusicGen, folder: Path) -> None:
    expected = golden(f"{folder.name}/negatives", checksums_of(folder))
    requests = [
        (replace(greedy(prompt, frames), negative_prompt=negative), joins_at)
        for prompt, negative, frames, joins_at in NEGATIVES
    ]
    for (_, negative, frames, _), codes, (state, _) in zip(NEGATIVES, expected, run(model, requests), strict=True):
        assert np.array_equal(state.codes.select_frames(0, frames), codes), negative


@EACH_GENERATOR
@pytest.mark.parametrize(
    ("fields", "prompts", "negative"),
    [
        ({"negative_prompt": NEGATIVE}, {"calm piano": 1.0}, NEGATIVE),
        (
            {"prompt_weight": 1.5, "further_prompts": FURTHER},
            {"calm piano": 3 / 8, "80s synthwave": 0.5, "lofi": 1 / 8},
            "",
        ),
        ({"negative_prompt": "x", "further_prompts": FURTHER[1:]}, {"calm piano": 2 / 3, "lofi": 1 / 3}, "x"),
    ],
    ids=["negative", "weighted", "both"],
)
def test_greedy_codes_of_several_texts_equal_a_plain_implementation(
    model: MusicGen, plain: PlainLanguageModel, fields: dict[str, Any], prompts: dict[str, float], negative: str
) -> None:
    branches = tuple(Branch(text(model, prompt), weight, weight) for prompt, weight in prompts.items())
    expected = plain.generate(25, WindowConditions(branches, text(model, negative)), GUIDANCE_SCALE)
    codes = codes_of(model, replace(greedy("calm piano", 25), **fields))
    assert np.array_equal(codes, expected)
    assert not np.array_equal(codes, codes_of(model, greedy("calm piano", 25)))


@EACH_GENERATOR
def test_greedy_codes_of_sections_equal_a_plain_implementation(model: MusicGen, plain: PlainLanguageModel) -> None:
    """Each window reads the last 24 frames; a fade takes a quarter of the shorter section on both sides."""
    parameters = replace(greedy("lofi", 120), sections=SECTIONS, negative_prompt="x")
    piano, drums, lofi = (text(model, prompt) for prompt in ("calm piano", "drop, drums", "lofi"))
    codes = codes_of(model, parameters)
    expected: Codes = np.zeros((len(codes), 0), np.int64)
    for end, *branches in (
        (30, Branch(piano)),
        (50, Branch(piano, 1.0, 0.0), Branch(drums, 0.0, 1.0)),
        (50 + STRIDE, Branch(drums)),
        (95, Branch(drums)),
        (105, Branch(drums, 1.0, 0.0), Branch(lofi, 0.0, 1.0)),
        (120, Branch(lofi)),
    ):
        known = expected[:, -(WINDOW - STRIDE) :]
        frames = known.shape[1] + end - expected.shape[1]
        conditions = WindowConditions(tuple(branches), text(model, "x"))
        window = plain.generate(frames, conditions, GUIDANCE_SCALE, known if known.size else None)
        expected = np.concatenate([expected, window[:, known.shape[1] :]], 1)
    assert np.array_equal(codes, expected)


def varied_requests() -> list[tuple[GenerationParameters, int]]:
    """They have 8 slots of the resident generator, which are all."""

    def request(prompt: str, frames: int, **fields: Any) -> GenerationParameters:
        return GenerationParameters(prompt, frames * HOP - 77, seed=frames, top_k=20, **fields)

    return [
        (request("lofi", 120, sections=SECTIONS), 0),
        (request("calm piano", 130), 1),
        (request("", 40, negative_prompt=NEGATIVE), 3),
        (request("calm piano", 70, further_prompts=FURTHER, prompt_weight=0.3), 9),
        (request("calm piano", 119, sections=SECTIONS[1:], negative_prompt="x"), 20),
    ]


@EACH_GENERATOR
def test_sampled_audio_does_not_depend_on_the_batch(model: MusicGen) -> None:
    requests = varied_requests()
    for (parameters, _), (state, samples) in zip(requests, run(model, requests), strict=True):
        ((alone, expected),) = run(model, [(parameters, 0)])
        count = state.codes.total_frames
        assert np.array_equal(state.codes.select_frames(0, count), alone.codes.select_frames(0, count))
        assert np.array_equal(samples, expected)


@EACH_GENERATOR
def test_cancelled_request_frees_the_memory_of_all_its_branches(model: MusicGen) -> None:
    """In the middle of a fade, while another request goes on as if it had been alone."""
    other = greedy("calm piano", 90)
    states = [model.prefill(other), model.prefill(replace(greedy("lofi", 120), sections=SECTIONS))]
    alone = model.memory.size_bytes(states[0].conditions.reserve(WINDOW + 3))
    assert model.memory.reserved_bytes > 2 * alone
    while states[1].codes.frames_ready < 40:
        step_all(model, states)
    assert len(states[1].row.conditions.branches) == 2
    model.release(states[1])
    assert model.memory.reserved_bytes == alone
    while states[0].frames_delivered < states[0].frames:
        step_all(model, states[:1])
    codes = states[0].codes.select_frames(0, 90)
    model.release(states[0])
    assert np.array_equal(codes, codes_of(model, other))


@EACH_GENERATOR
def test_negative_prompt_costs_nothing_where_it_has_no_effect(model: MusicGen) -> None:
    plain = replace(greedy("calm piano", 20), guidance_scale=1.0)
    sizes = []
    for negative in ("", NEGATIVE):
        state = model.prefill(replace(plain, negative_prompt=negative))
        sizes.append(model.memory.reserved_bytes)
        model.release(state)
    assert sizes[0] == sizes[1]


@EACH_GENERATOR
def test_all_texts_are_encoded_ahead(model: MusicGen, monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = GenerationParameters(
        "one", 100 * HOP, 1, negative_prompt="two", sections=(PromptSection(0, 40 * HOP, "three"),)
    )
    weighted = replace(parameters, prompt="four", sections=(), further_prompts=(WeightedPrompt("five", 1.0),))
    model.encode_prompts([parameters, weighted])

    def encode_again(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(model._conditions.texts, "_encode", encode_again)
    for each in (parameters, weighted):
        model.release(model.prefill(each))
    with pytest.raises(AssertionError):
        model.prefill(greedy("six", 10))
