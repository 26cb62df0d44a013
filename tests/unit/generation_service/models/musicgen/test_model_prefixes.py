"""MusicGen-melody and MusicGen-Style: codes equal to audiocraft's, and melody and style matter."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("transformers", reason="the text encoder is transformers'")

import torch

from dgx_music.errors import InvalidArgument
from generation_service.models.base import (
    Capability,
    GenerationParameters,
    PromptSection,
    StyleExcerpt,
    WeightedPrompt,
)
from generation_service.models.musicgen.conditioners.chroma import ChromaExtractor
from generation_service.models.musicgen.delay_pattern import Codes
from generation_service.models.musicgen.loader import find_musicgen
from generation_service.models.musicgen.model import MusicGen
from tests.support.generator_runs import LateEvent
from tests.support.golden_codes import HOP, RATE_HZ
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
from tests.support.transformers_checkpoints import (
    MELODY_LENGTH,
    generate_with_transformers,
    write_transformers_checkpoint,
)


def load(folder: Path, generator: str) -> MusicGen:
    options: dict[str, Any] = {"max_batch_size": 16}
    if generator == "resident":
        options |= {"prefill_positions": PIECE, "length_buckets": (32,), "copy_results": LateEvent}
    return load_model(find_musicgen(folder), generator, **options)


@pytest.mark.parametrize("name", [pytest.param("melody", marks=pytest.mark.slow), "stereo-melody"])
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


@pytest.fixture(scope="module", params=[pytest.param("mono", marks=pytest.mark.slow), "stereo"])
def saved_melody(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MusicGen-melody as transformers saves it."""
    folder = tmp_path_factory.mktemp("saved") / "melody"
    return write_transformers_checkpoint(folder, melody=True, stereo=request.param == "stereo")


def test_greedy_codes_equal_transformers(saved_melody: Path, generator: str) -> None:
    """Its extractor of features needs torchaudio; they are compared in `test_melody_conditioner`."""
    model = load(saved_melody, generator)
    cases = [("calm piano", 30), ("lofi", 90), ("80s synthwave", 0)]
    melodies = [melody_clip(model.info.channels, frames) if frames else None for _, frames in cases]
    config = find_musicgen(saved_melody).config.melody
    assert config is not None
    assert (config.length, config.max_frames) == (MELODY_LENGTH, RATE_HZ)
    extractor = ChromaExtractor(config.chroma)
    features = [None if own is None else extractor.extract(torch.from_numpy(own.mean(1)[:RATE_HZ])) for own in melodies]
    expected = generate_with_transformers(saved_melody, [prompt for prompt, _ in cases], 25, melodies=features)
    requests = [
        (GenerationParameters(prompt, 25 * HOP, seed=0, temperature=0, melody=own), index)
        for index, ((prompt, _), own) in enumerate(zip(cases, melodies, strict=True))
    ]
    for want, (state, samples) in zip(expected, run(model, requests), strict=True):
        assert np.array_equal(state.codes.select_frames(0, 25), want.codes.numpy())
        np.testing.assert_allclose(samples, want.samples, atol=1e-5)


@pytest.fixture(scope="module")
def melody_model(melody: Path, generator: str, t5: None) -> MusicGen:
    return load(melody, generator)


@pytest.fixture(scope="module")
def style_model(style: Path, generator: str, t5: None) -> MusicGen:
    return load(style, generator)


def request_with(prompt: str = "calm piano", new: int = 20, **fields: Any) -> GenerationParameters:
    return GenerationParameters(prompt, new * HOP, seed=0, temperature=0, **fields)


def codes_of(model: MusicGen, *requests: GenerationParameters) -> list[Codes]:
    """All codes of each request, in one batch."""
    return [
        state.codes.select_frames(0, state.codes.total_frames) for state, _ in run(model, [(r, 0) for r in requests])
    ]


def test_models_say_what_they_can_follow(melody_model: MusicGen, style_model: MusicGen) -> None:
    assert Capability.MELODY in melody_model.info.capabilities
    assert Capability.STYLE not in melody_model.info.capabilities
    assert Capability.STYLE in style_model.info.capabilities
    assert Capability.MELODY not in style_model.info.capabilities


def test_every_condition_matters_and_no_request_changes_another(melody_model: MusicGen) -> None:
    first, second = melody_clip(1, 30), melody_clip(1, 60)[30 * HOP :]
    requests = [
        request_with(),
        request_with(melody=first),
        request_with(melody=second),
        request_with("lofi", melody=first),
        request_with(melody=first, negative_prompt="drums"),
        request_with(melody=first, further_prompts=(WeightedPrompt("a much longer text than the first one", 1.0),)),
        request_with(melody=first, guidance_scale=1.0),
        request_with(melody=first, prompt_audio=melody_clip(1, 10)),
        request_with(new=70, melody=first, sections=(PromptSection(30 * HOP, 70 * HOP, "drop, drums"),)),
    ]
    together = codes_of(melody_model, *requests)
    for request, codes in zip(requests, together, strict=True):
        assert np.array_equal(codes, *codes_of(melody_model, request))
    assert len({codes[:, :20].tobytes() for codes in together[:7]}) == 7


def test_melody_begins_with_the_output_of_a_continuation(melody_model: MusicGen) -> None:
    """Of a melody that is silent but for its beginning, the clip before the output gets the end."""
    clip, melody = melody_clip(1, 20), melody_clip(1, 60)
    melody[40 * HOP :] = 0
    shifted = np.roll(melody, 20 * HOP, axis=0)
    state = melody_model.prefill(request_with(prompt_audio=clip, melody=melody))
    whole = melody_model.prefill(request_with(new=40, melody=shifted))
    try:
        own, expected = (each.row.conditions.branches[0].condition.prefix for each in (state, whole))
        assert torch.equal(own, expected)
    finally:
        melody_model.release(state)
        melody_model.release(whole)


def test_style_and_its_text_guidance_matter(style_model: MusicGen) -> None:
    excerpts = [
        None,
        StyleExcerpt(style_clip(3.0)),
        StyleExcerpt(style_clip(3.0), text_guidance=1.0),
        StyleExcerpt(style_clip(3.0), quantizers=4),
        StyleExcerpt(style_clip(6.0)[3 * RATE_HZ :]),
    ]
    together = codes_of(style_model, *(request_with(style=own) for own in excerpts))
    assert len({codes.tobytes() for codes in together}) == len(excerpts)
    for own, codes in zip(excerpts, together, strict=True):
        assert np.array_equal(codes, *codes_of(style_model, request_with(style=own)))


def test_how_the_melody_was_separated_is_known(melody_model: MusicGen) -> None:
    for fields, expected in (({"melody": melody_clip(1, 30)}, {"melody_separation": "none"}), ({}, {})):
        state = melody_model.prefill(request_with(**fields))
        assert state.metadata == expected
        melody_model.release(state)


TEXTS = tuple(WeightedPrompt(text, 1.0) for text in ("a", "b", "c"))


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"style": StyleExcerpt(style_clip(1.0))}, r"conditioning\.style\.seconds"),
        ({"style": StyleExcerpt(style_clip(2.0)), "further_prompts": TEXTS}, "guided by at most 3 texts"),
        ({"prompt": "x" * 600}, "^prompt: has 60[0-9] tokens; this model reads at most 512"),
        ({"negative_prompt": "x" * 600}, r"^conditioning\.negative_prompt: has 60[0-9] tokens"),
        (
            {"further_prompts": (*TEXTS[:1], WeightedPrompt("x" * 600, 1.0))},
            r"^conditioning\.further_prompts\[1\]\.prompt: has 60[0-9] tokens",
        ),
        (
            {"sections": (PromptSection(0, 10 * HOP, "x" * 600),)},
            r"^conditioning\.sections\[0\]\.prompt: has 60[0-9] tokens",
        ),
    ],
)
def test_unusable_request_is_refused_and_leaves_no_memory_reserved(
    style_model: MusicGen, fields: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InvalidArgument, match=problem):
        style_model.prefill(request_with(**fields))
    assert style_model.memory.reserved_bytes == 0


def test_empty_melody_is_refused(melody_model: MusicGen) -> None:
    with pytest.raises(InvalidArgument, match=r"conditioning\.melody\.start_seconds"):
        melody_model.encode_prompts([request_with(melody=melody_clip(1, 1)[:0])])


def test_audio_that_was_encoded_ahead_is_found(
    melody_model: MusicGen, style_model: MusicGen, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = {
        melody_model: request_with(new=130, melody=melody_clip(1, 31)),
        style_model: request_with(style=StyleExcerpt(style_clip(2.5))),
    }
    for model, request in requests.items():
        model.encode_prompts([request])
    # None of these could encode anything.
    melody = melody_model._conditions._prefixes._melody
    monkeypatch.setattr(melody, "separator", SimpleNamespace(name="none"))
    monkeypatch.setattr(melody, "_extractor", None)
    monkeypatch.setattr(style_model._conditions._prefixes._style, "_quantize", None)
    for model, request in requests.items():
        assert len(codes_of(model, request)[0][0]) == request.frames // HOP
