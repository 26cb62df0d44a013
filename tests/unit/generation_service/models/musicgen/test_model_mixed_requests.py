# ruff: noqa: E402
"""Requests of every kind that join, pause, are cancelled, and fail in one changing batch with little memory."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("transformers", reason="the text encoder is transformers'")

from dgx_music.errors import InvalidArgument, ResourceExhausted, ServiceError
from generation_service.models.base import (
    AdapterUse,
    FloatArray,
    GenerationParameters,
    PromptSection,
    StyleExcerpt,
    TooLarge,
    WeightedPrompt,
)
from generation_service.models.musicgen.loader import find_musicgen
from generation_service.models.musicgen.model import MusicGen, MusicGenState
from generation_service.models.musicgen.resident.resident_code_generator import ResidentCodeGenerator
from tests.support.adapter_files import FC1, write_adapter_files
from tests.support.generator_runs import LateEvent
from tests.support.golden_codes import FRAME_RATE_HZ, HOP, WINDOW
from tests.support.golden_prefixes import melody_clip, style_clip
from tests.support.musicgen_runs import PIECE, load_model, run

PLACES = 5
TEXTS = ("", "lofi", "calm piano", "an energetic drum and bass track at 174 bpm, with a deep sub and chopped breaks")
ADAPTERS = {"jazz": 4, "vinyl": 24}


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapters")
    for name, rank in ADAPTERS.items():
        generator = torch.Generator().manual_seed(rank)
        factors = {
            f"{FC1}.lora_A.weight": torch.randn(rank, 64, generator=generator) / 8,
            f"{FC1}.lora_B.weight": torch.randn(256, rank, generator=generator) / 2,
        }
        write_adapter_files(folder / name, factors, r=rank, lora_alpha=rank)
    return folder


def load(folder: Path, adapters: Path, generator: str) -> MusicGen:
    """A model with short windows, a few places, and memory for less than half of them with all branches."""
    found = find_musicgen(folder, adapter_folder=adapters)
    found = replace(found, config=replace(found.config, max_duration_seconds=WINDOW / FRAME_RATE_HZ))
    options: dict[str, Any] = {"max_batch_size": PLACES, "kv_bytes": 4 << 20}
    if generator == "resident":
        options |= {"prefill_positions": PIECE, "length_buckets": (32,), "copy_results": LateEvent}
    return load_model(found, generator, **options)


def draw_request(drawn: random.Random, kind: str, seed: int) -> GenerationParameters:
    """`kind` is the name of the model's folder. Every field that it has is set in some requests."""
    frames = drawn.choice((1, 9, 25, 30, WINDOW + 1))

    def sometimes(value: Any, otherwise: Any = None, share: float = 0.3) -> Any:
        return value if drawn.random() < share else otherwise

    fields: dict[str, Any] = {
        "negative_prompt": sometimes(drawn.choice(TEXTS), ""),
        "guidance_scale": sometimes(1.0, 3.0, 0.1),
        "prompt_audio": sometimes(melody_clip(1, drawn.choice((1, 20, WINDOW)))),
        "temperature": drawn.choice((0.0, 1.0)),
        "top_k": drawn.choice((0, 20, 250)),
        "top_p": sometimes(0.8, 0.0),
    }
    if fields["prompt_audio"] is not None:
        fields["kept_prompt_frames"] = sometimes(HOP // 2 + 1, 0)
    if drawn.random() < 0.3:
        start, end = sorted(drawn.sample(range(frames + 2), 2))
        fields["sections"] = (PromptSection(start * HOP, end * HOP, drawn.choice(TEXTS[1:])),)
    elif drawn.random() < 0.5:
        fields["prompt_weight"] = drawn.choice((0.5, 1.0))
        fields["further_prompts"] = tuple(WeightedPrompt(text, 1.0) for text in drawn.sample(TEXTS[1:], 2))
    if kind == "melody":
        fields["melody"] = sometimes(melody_clip(1, drawn.choice((30, 90))), share=0.7)
    elif kind == "style":
        fields["style"] = sometimes(StyleExcerpt(style_clip(3.0), text_guidance=drawn.choice((1.0, 5.0))), share=0.7)
    else:
        fields["adapters"] = tuple(
            AdapterUse(name, drawn.choice((1.0, -0.5)))
            for name in drawn.sample(sorted(ADAPTERS), drawn.choice((0, 0, 1, 2)))
        )
    return GenerationParameters(drawn.choice(TEXTS), frames * HOP, seed, **fields)


def run_mixed(
    model: MusicGen, requests: Sequence[GenerationParameters], cancelled: dict[int, int], drawn: random.Random
) -> dict[int, tuple[MusicGenState, FloatArray]]:
    """Admits the requests in order as soon as there is room, pauses some of them now and then, and cancels those of
    `cancelled` in the round after their admission. Returns the state and the samples of each, as far as it got."""
    waiting, rounds = list(range(len(requests))), 0
    running: dict[int, MusicGenState] = {}
    ages: dict[int, int] = {}
    blocks: dict[int, list[FloatArray]] = {}
    done: dict[int, tuple[MusicGenState, FloatArray]] = {}
    while waiting or running:
        rounds += 1
        assert rounds < 5000, "requests make no progress"
        while waiting:
            index = waiting[0]
            try:
                running[index] = model.prefill(requests[index])
            except TooLarge:
                raise
            except ResourceExhausted:
                assert running, "an idle model has room for every request"
                break
            blocks[index], ages[index] = [], 0
            waiting.pop(0)
        stepped = [index for index in running if drawn.random() < 0.8] or list(running)
        for index, block in zip(stepped, model.step([running[index] for index in stepped]), strict=True):
            assert not isinstance(block, ServiceError), block
            blocks[index].append(block)
            ages[index] += 1
        for index, state in list(running.items()):
            if ages[index] == cancelled.get(index) or sum(map(len, blocks[index])) == state.frames:
                done[index] = running.pop(index), np.concatenate(blocks[index])
                model.release(state)
    return done


def assert_idle(model: MusicGen) -> None:
    assert model.memory.reserved_bytes == 0
    assert not model._states
    if isinstance(model._generator, ResidentCodeGenerator):
        slots, pages, bank = model._generator._slots, model._generator.memory, model._generator._bank
        assert sorted(slots._free) == list(range(slots.count))
        assert sorted(pages._free) == list(range(1, pages._pages + 1))
        assert [place.users for place in bank._places] == [0] * len(bank._places)


@pytest.mark.parametrize(
    ("kind", "generator"),
    [
        ("mono", "eager"),
        ("mono", "resident"),
        pytest.param("melody", "resident", marks=pytest.mark.slow),
        pytest.param("style", "eager", marks=pytest.mark.slow),
    ],
)
def test_request_equals_itself_alone_and_leaves_nothing(
    kind: str, generator: str, adapters: Path, request: pytest.FixtureRequest, t5: None
) -> None:
    drawn = random.Random(f"{kind} 3")
    model = load(request.getfixturevalue(kind), adapters, generator)
    requests = [draw_request(drawn, kind, seed) for seed in range(8)]
    cancelled = {index: drawn.choice((1, 7, 30)) for index in drawn.sample(range(len(requests)), 3)}
    together = run_mixed(model, requests, cancelled, drawn)
    assert_idle(model)
    for index, (state, samples) in together.items():
        ((alone, expected),) = run(model, [(requests[index], 0)])
        count = state.codes.frames_ready
        codes = alone.codes.select_frames(0, count)
        assert np.array_equal(state.codes.select_frames(0, count), codes), requests[index]
        assert index in cancelled or len(samples) == requests[index].frames
        np.testing.assert_allclose(samples, expected[: len(samples)], atol=1e-6)
    assert_idle(model)


def test_window_that_can_not_begin_fails_its_request_alone(
    mono: Path, adapters: Path, generator: str, t5: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while the other request is not stepped, whose codes come with the same results."""
    model = load(mono, adapters, generator)
    requests = [GenerationParameters("lofi", frames * HOP, seed) for seed, frames in enumerate((WINDOW + 20, 100))]
    expected = run(model, [(requests[1], 0)])[0][1]
    failing, other = (model.prefill(each) for each in requests)
    begin_window = model._generator.begin_window

    def begin(row: Any, *arguments: Any) -> None:
        if row is failing.row:
            raise RuntimeError("no memory")
        begin_window(row, *arguments)

    monkeypatch.setattr(model._generator, "begin_window", begin)
    blocks: list[FloatArray] = []
    failure = None
    while failure is None:
        # Now and then alone.
        for states in [failing, other], [failing]:
            for state, block in zip(states, model.step(states), strict=True):
                if state is other:
                    assert not isinstance(block, ServiceError)
                    blocks.append(block)
                elif isinstance(block, ServiceError):
                    failure = block
    model.release(failing)
    assert failure.reason == "MODEL_FAILED"
    assert "failed to begin the window at frame 36 of codes: RuntimeError: no memory" in failure.message
    while sum(map(len, blocks)) < other.frames:
        (block,) = model.step([other])
        assert not isinstance(block, ServiceError)
        blocks.append(block)
    model.release(other)
    np.testing.assert_allclose(np.concatenate(blocks), expected, atol=1e-6)
    assert_idle(model)


def test_refused_request_leaves_nothing(mono: Path, adapters: Path, generator: str, t5: None) -> None:
    model = load(mono, adapters, generator)
    for fields, field in (
        ({"adapters": (AdapterUse("jazz"), AdapterUse("unknown"))}, "adapters"),
        ({"prompt_audio": np.zeros((HOP - 1, 1), np.float32)}, "continuation"),
    ):
        with pytest.raises(InvalidArgument, match=field):
            model.prefill(replace(GenerationParameters("lofi", HOP, 0), **fields))
        assert_idle(model)
