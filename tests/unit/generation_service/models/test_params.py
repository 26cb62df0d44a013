"""The validation of a request and its conversion to parameters."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from dgx_music.errors import InvalidArgument
from generation_service.models.params import build_parameters


def test_frames_are_the_duration_at_the_models_sample_rate(model):
    parameters = build_parameters(model.info, "lo-fi\tbeat\nslow", 1.23456, 5, {})
    assert (parameters.prompt, parameters.frames, parameters.seed) == ("lo-fi\tbeat\nslow", 9876, 5)


def test_missing_seed_is_drawn_at_random(model):
    seeds = {build_parameters(model.info, "beat", 1.0, None, {}).seed for _ in range(4)}
    assert len(seeds) == 4
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("seed", [0, 2**63 - 1])
def test_smallest_and_largest_seed_are_accepted(model, seed):
    assert build_parameters(model.info, "beat", 0.1, seed, {}).seed == seed


@pytest.mark.parametrize(
    ("prompt", "duration", "seed", "field"),
    [
        ("", 1.0, None, "prompt"),
        (" \n\t", 1.0, None, "prompt"),
        ("x" * 10_001, 1.0, None, "prompt"),
        ("beat\0", 1.0, None, "prompt"),
        ("beat\x85", 1.0, None, "prompt"),
        ("beat", math.nan, None, "duration_seconds"),
        ("beat", math.inf, None, "duration_seconds"),
        ("beat", 0.0, None, "duration_seconds"),
        ("beat", -1.0, None, "duration_seconds"),
        ("beat", 1e9, None, "duration_seconds"),
        ("beat", 0.099, None, "duration_seconds"),
        ("beat", 1.0, -1, "seed"),
        ("beat", 1.0, 2**63, "seed"),
    ],
)
def test_invalid_value_raises_for_its_field(model, prompt, duration, seed, field):
    with pytest.raises(InvalidArgument) as caught:
        build_parameters(model.info, prompt, duration, seed, {})
    assert caught.value.field == field
    assert caught.value.message.startswith(f"{field}: must ")


def test_longest_prompt_is_accepted(model):
    assert len(build_parameters(model.info, "ä" * 10_000, 1.0, 1, {}).prompt) == 10_000


def test_missing_sampling_parameters_keep_their_defaults(model):
    parameters = build_parameters(model.info, "beat", 1.0, 1, {"temperature": 0.7, "top_k": 0})
    assert (parameters.temperature, parameters.top_k, parameters.top_p, parameters.guidance_scale) == (0.7, 0, 0.0, 3.0)


def test_the_default_guidance_is_the_models(model):
    info = replace(model.info, default_guidance_scale=7.0)
    assert build_parameters(info, "beat", 1.0, 1, {}).guidance_scale == 7.0
    assert build_parameters(info, "beat", 1.0, 1, {"guidance_scale": 2.0}).guidance_scale == 2.0


@pytest.mark.parametrize(
    ("sampling", "top_k"), [({"top_p": 0.9}, 0), ({"top_p": 0.9, "top_k": 40}, 40), ({"top_p": 0.0}, 250)]
)
def test_top_p_alone_applies_to_all_codes(model, sampling, top_k):
    assert build_parameters(model.info, "beat", 1.0, 1, sampling).top_k == top_k


@pytest.mark.parametrize(
    ("name", "ends"),
    [("temperature", (1e-9, 10)), ("top_k", (0, 2048)), ("top_p", (0, 1)), ("guidance_scale", (0, 20))],
)
def test_sampling_range_ends_are_accepted(model, name, ends):
    for value in ends:
        assert getattr(build_parameters(model.info, "beat", 1.0, 1, {name: value}), name) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 0.0),
        ("temperature", -1.0),
        ("temperature", 10.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_k", -1),
        ("top_k", 2049),
        ("top_p", -0.1),
        ("top_p", 1.1),
        ("top_p", math.nan),
        ("guidance_scale", -0.1),
        ("guidance_scale", 20.1),
        ("guidance_scale", math.nan),
    ],
)
def test_invalid_sampling_raises_for_its_field(model, name, value):
    with pytest.raises(InvalidArgument, match=f"^sampling.{name}: must be ") as caught:
        build_parameters(model.info, "beat", 1.0, 1, {name: value})
    assert caught.value.field == f"sampling.{name}"
