# ruff: noqa: E402
"""MusicGen on a GPU: independence of the batch, unloading, continuation, and out-of-memory errors."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("transformers", reason="the text encoder is transformers'")

from torch import Tensor

from generation_service.config import GenerationSettings
from generation_service.engine.model_cache import ModelCache
from generation_service.models.base import FloatArray, GenerationParameters
from generation_service.models.device_errors import is_fatal, is_out_of_memory
from generation_service.models.discovery import find_installed_models
from generation_service.models.musicgen.codec.encodec_checkpoint import load_encodec
from generation_service.models.musicgen.loader import find_musicgen, load_musicgen
from generation_service.models.musicgen.model import MusicGen, MusicGenState
from tests.support.golden_codes import clip as golden_clip
from tests.support.musicgen_runs import step_all

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU that torch can use"),
]

HOP = 640


@pytest.fixture
def model(mono: Path, t5: None) -> MusicGen:
    return load_musicgen(find_musicgen(mono, device="cuda"))


@pytest.fixture
def limit_memory() -> Iterator[Callable[[], list[Tensor]]]:
    """A function that fills torch's memory to the last byte. The memory stays full until its result is dropped."""

    def fill() -> list[Tensor]:
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(torch.cuda.memory_reserved() / torch.cuda.mem_get_info()[1])
        filler: list[Tensor] = []
        for size in (1 << 26, 1 << 20, 1 << 9):  # Fills the memory that torch has reserved but does not use.
            with contextlib.suppress(torch.OutOfMemoryError):
                while True:
                    filler.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
        return filler

    yield fill
    torch.cuda.set_per_process_memory_fraction(1.0)


def run(model: MusicGen, states: list[MusicGenState]) -> list[FloatArray]:
    """Steps all states until they are done, and returns their samples."""
    blocks: list[list[FloatArray]] = [[] for _ in states]
    for _ in range(2000):
        active = [i for i, state in enumerate(states) if sum(map(len, blocks[i])) < state.frames]
        if not active:
            break
        for i, block in zip(active, step_all(model, [states[i] for i in active]), strict=True):
            blocks[i].append(block)
    return [np.concatenate(own) for own in blocks]


def test_audio_does_not_depend_on_the_changing_batch(model: MusicGen) -> None:
    requests = [
        GenerationParameters("calm piano", 33 * HOP, seed=1),
        GenerationParameters("calm piano", 300 * HOP + 5, seed=2),
        GenerationParameters("fast drums and a very long description of them " * 3, 20 * HOP, seed=1),
        GenerationParameters("lofi", 41 * HOP, seed=4, top_p=0.9),
    ]
    alone = []
    for request in requests:
        state = model.prefill(request)
        alone.append(run(model, [state])[0])
        model.release(state)
    assert not np.array_equal(alone[0][: 20 * HOP], alone[1][: 20 * HOP]), "the audio depends on the seed"
    states: list[MusicGenState] = []
    blocks: list[list[FloatArray]] = [[] for _ in requests]
    for now in range(500):
        if now % 7 == 0 and len(states) < len(requests):
            states.append(model.prefill(requests[len(states)]))
        active = [i for i, state in enumerate(states) if sum(map(len, blocks[i])) < state.frames]
        if not active:
            break
        for i, block in zip(active, step_all(model, [states[i] for i in active]), strict=True):
            blocks[i].append(block)
            if sum(map(len, blocks[i])) == states[i].frames:
                model.release(states[i])
    for samples, own in zip(alone, blocks, strict=True):
        np.testing.assert_allclose(np.concatenate(own), samples, atol=1e-3)
    assert model.memory.reserved_bytes == 0


def test_unloaded_model_releases_its_memory(mono: Path, t5: None) -> None:
    catalog = find_installed_models(GenerationSettings(model_folders=(mono,), device="cuda"))
    models = ModelCache(catalog)
    loaded = models.get(catalog.get("mono").describe())
    state = loaded.prefill(GenerationParameters("calm piano", 20 * HOP, seed=1))
    run(loaded, [state])
    loaded.release(state)
    pool_bytes, reserved = loaded.memory.limit_bytes, torch.cuda.memory_reserved()
    reference = weakref.ref(loaded)
    del loaded, state
    models.unload("mono")
    assert reference() is None
    assert torch.cuda.memory_reserved() <= reserved - pool_bytes


def test_clip_is_encoded_as_on_the_cpu(model: MusicGen, mono: Path) -> None:
    clip = golden_clip(1, 40 * HOP)
    state = model.prefill(GenerationParameters("calm piano", 20 * HOP, seed=1, prompt_audio=clip))
    exact = load_encodec(mono).encode(clip)
    agree = (state.codes.select_frames(0, 40) == exact.numpy()).mean()
    assert agree > 0.95, "ties may be broken differently"
    assert len(run(model, [state])[0]) == 20 * HOP
    model.release(state)


def test_out_of_memory_fails_only_the_request_that_needed_it(
    model: MusicGen, limit_memory: Callable[[], list[Tensor]]
) -> None:
    parameters = GenerationParameters("calm", 60 * HOP, seed=3)
    before = model.prefill(parameters)
    expected = run(model, [before])[0]
    model.release(before)
    bystander = model.prefill(parameters)
    blocks = [step_all(model, [bystander])[0] for _ in range(20)]
    reserved = model.memory.reserved_bytes
    filler = limit_memory()
    with pytest.raises(torch.OutOfMemoryError) as failed:
        model.prefill(GenerationParameters("a long prompt " * 30, 60 * HOP, seed=1))
    filler.clear()
    assert is_out_of_memory(failed.value)
    assert not is_fatal(failed.value)
    assert model.memory.reserved_bytes == reserved, "the KV cache has been released"
    while sum(map(len, blocks)) < bystander.frames:
        blocks += step_all(model, [bystander])
    np.testing.assert_allclose(np.concatenate(blocks), expected, atol=1e-3)
