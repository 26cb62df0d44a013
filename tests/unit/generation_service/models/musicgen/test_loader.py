# ruff: noqa: E402
"""MusicGen over the accelerator's language model, on the CPU, and what loading says of devices and precisions."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("transformers", reason="the text encoder is transformers'")

from dgx_music.errors import FailedPrecondition, ResourceExhausted
from generation_service.models.base import FloatArray, GenerationParameters
from generation_service.models.musicgen.lm.static_language_model import run_eagerly
from generation_service.models.musicgen.loader import FoundModel, find_musicgen, load_musicgen, load_static
from generation_service.models.musicgen.model import MusicGen

HOP = 640
POSITIONS = 1503
has_cuda = torch.cuda.is_available()


@pytest.fixture
def found(mono: Path, t5: None) -> FoundModel:
    return find_musicgen(mono)


def make(model: MusicGen, asked: list[GenerationParameters]) -> list[FloatArray]:
    states = [model.prefill(one) for one in asked]
    made: list[list[FloatArray]] = [[] for _ in asked]
    for _ in range(200):
        for blocks, block in zip(made, model.step(states), strict=True):
            blocks.append(block)
    for state in states:
        model.release(state)
    return [np.concatenate(blocks) for blocks in made]


def test_it_makes_the_music_that_the_plain_model_makes(found: FoundModel) -> None:
    plain = load_musicgen(found)
    lm, memory = load_static(found, POSITIONS, 1 << 30, 3, run_eagerly)
    static = MusicGen(found.info, lm, plain._conditioner, plain._codec, memory)
    prompts = [("calm piano", 60), ("x", 33), ("drums", 100)]
    asked = [GenerationParameters(prompt, frames * HOP, 1, temperature=0) for prompt, frames in prompts]
    for ours, theirs in zip(make(static, asked), make(plain, asked), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    states = [static.prefill(one) for one in asked]
    with pytest.raises(ResourceExhausted, match="all 3 KV caches"):
        static.prefill(asked[0])
    assert len(states) == 3


def test_as_many_requests_as_memory_has_room_for(found: FoundModel) -> None:
    _, one = load_static(found, POSITIONS, 1 << 30, 1, run_eagerly)
    size = one.limit_bytes
    assert load_static(found, POSITIONS, 3 * size - 1, 8, run_eagerly)[1].limit_bytes == 2 * size
    with pytest.raises(FailedPrecondition, match="DGX_MUSIC_DEVICE") as refused:
        load_static(found, POSITIONS, size - 1, 8, run_eagerly)
    assert refused.value.reason == "GPU_MEMORY"


def test_half_the_memory_in_bf16(found: FoundModel) -> None:
    narrow = dataclasses.replace(found, precision="bf16")
    sizes = [load_static(one, POSITIONS, 1 << 30, 1, run_eagerly)[1].limit_bytes for one in (found, narrow)]
    assert sizes[0] == 2 * sizes[1]


def test_a_precision_the_device_has_not_names_the_setting(mono: Path) -> None:
    with pytest.raises(FailedPrecondition, match="DGX_MUSIC_PRECISION is bf16; on cpu it can be fp32 or int8"):
        find_musicgen(mono, device="cpu", precision="bf16")


@pytest.mark.skipif(has_cuda, reason="there is a GPU")
def test_without_a_gpu_auto_is_the_cpu_and_cuda_is_refused(mono: Path) -> None:
    found = find_musicgen(mono, device="auto", precision="auto")
    assert (found.device, found.precision) == ("cpu", "fp32")
    with pytest.raises(FailedPrecondition, match="DGX_MUSIC_DEVICE is cuda"):
        find_musicgen(mono, device="cuda")


@pytest.mark.cuda
@pytest.mark.skipif(not has_cuda, reason="needs an NVIDIA GPU that torch can use")
def test_with_a_gpu_auto_is_cuda_in_bf16_and_int8_is_refused(mono: Path) -> None:
    found = find_musicgen(mono, device="auto", precision="auto")
    assert (found.device, found.precision) == ("cuda", "bf16")
    assert found.info.version != find_musicgen(mono).info.version
    with pytest.raises(FailedPrecondition, match="DGX_MUSIC_PRECISION is int8; on cuda it can be bf16 or fp32"):
        find_musicgen(mono, device="cuda", precision="int8")
