# ruff: noqa: E402
"""Loading MusicGen: devices, precisions, invalid parts, and the accelerator's language model, run on the CPU."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("transformers", reason="the text encoder is transformers'")

from generation_service.models.musicgen.lm.static_language_model import run_eagerly

from dgx_music.errors import FailedPrecondition, ResourceExhausted
from generation_service.models.base import FloatArray, GenerationParameters
from generation_service.models.musicgen.loader import FoundModel, find_musicgen, load_musicgen, load_static_lm
from generation_service.models.musicgen.model import MusicGen
from tests.support.checkpoints import write_checkpoint, write_lm_with_config
from tests.support.compression_checkpoints import CodecShape, write_compression_checkpoint

HOP = 640
POSITIONS = 1503
has_cuda = torch.cuda.is_available()


@pytest.fixture
def found(mono: Path, t5: None) -> FoundModel:
    return find_musicgen(mono)


def generate(model: MusicGen, requests: list[GenerationParameters]) -> list[FloatArray]:
    states = [model.prefill(request) for request in requests]
    blocks: list[list[FloatArray]] = [[] for _ in requests]
    for _ in range(200):
        for own, block in zip(blocks, model.step(states), strict=True):
            own.append(block)
    for state in states:
        model.release(state)
    return [np.concatenate(own) for own in blocks]


def test_static_model_generates_the_same_audio_as_the_plain_model(found: FoundModel) -> None:
    plain = load_musicgen(found)
    lm, pool = load_static_lm(found, POSITIONS, 1 << 30, 3, run_eagerly)
    static = MusicGen(found.info, lm, plain._conditioner, plain._codec, pool)
    prompts = [("calm piano", 60), ("x", 33), ("drums", 100)]
    requests = [GenerationParameters(prompt, frames * HOP, 1, temperature=0) for prompt, frames in prompts]
    for ours, theirs in zip(generate(static, requests), generate(plain, requests), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    states = [static.prefill(request) for request in requests]
    with pytest.raises(ResourceExhausted, match="all 3 KV caches"):
        static.prefill(requests[0])
    assert len(states) == 3


def test_static_pool_has_as_many_slots_as_fit_into_memory(found: FoundModel) -> None:
    _, pool = load_static_lm(found, POSITIONS, 1 << 30, 1, run_eagerly)
    size = pool.limit_bytes
    assert load_static_lm(found, POSITIONS, 3 * size - 1, 8, run_eagerly)[1].limit_bytes == 2 * size
    with pytest.raises(FailedPrecondition, match="DGX_MUSIC_DEVICE") as error:
        load_static_lm(found, POSITIONS, size - 1, 8, run_eagerly)
    assert error.value.reason == "GPU_MEMORY"


def test_bf16_halves_the_size_of_a_slot(found: FoundModel) -> None:
    narrow = dataclasses.replace(found, precision="bf16")
    sizes = [load_static_lm(spec, POSITIONS, 1 << 30, 1, run_eagerly)[1].limit_bytes for spec in (found, narrow)]
    assert sizes[0] == 2 * sizes[1]


def test_unsupported_precision_error_names_the_setting(mono: Path) -> None:
    with pytest.raises(
        FailedPrecondition, match="DGX_MUSIC_PRECISION is bf16, which cpu does not support; use fp32 or int8"
    ):
        find_musicgen(mono, device="cpu", precision="bf16")


@pytest.mark.skipif(has_cuda, reason="there is a GPU")
def test_without_a_gpu_auto_selects_the_cpu_and_cuda_is_rejected(mono: Path) -> None:
    found = find_musicgen(mono, device="auto", precision="auto")
    assert (found.device, found.precision) == ("cpu", "fp32")
    with pytest.raises(FailedPrecondition, match="DGX_MUSIC_DEVICE is cuda"):
        find_musicgen(mono, device="cuda")


@pytest.mark.cuda
@pytest.mark.skipif(not has_cuda, reason="needs an NVIDIA GPU that torch can use")
def test_with_a_gpu_auto_selects_cuda_in_bf16_and_int8_is_rejected(mono: Path) -> None:
    found = find_musicgen(mono, device="auto", precision="auto")
    assert (found.device, found.precision) == ("cuda", "bf16")
    assert found.info.version != find_musicgen(mono).info.version
    with pytest.raises(FailedPrecondition, match="DGX_MUSIC_PRECISION is int8; on cuda it can be bf16 or fp32"):
        find_musicgen(mono, device="cuda", precision="int8")


def test_codec_that_does_not_fit_the_language_model_is_rejected(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    write_compression_checkpoint(
        tmp_path, CodecShape(n_filters=4, ratios=(8, 5, 4, 4), dimension=16, codebook_size=32, codebooks=2)
    )
    with pytest.raises(
        FailedPrecondition,
        match="the language model needs 4 of 64 at 32000 Hz",
    ):
        load_musicgen(find_musicgen(tmp_path))


def test_missing_text_encoder_error_names_the_download_command(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    write_lm_with_config(tmp_path, lambda config: config["conditioners"]["description"]["t5"].update(name="t5-large"))
    with pytest.raises(FailedPrecondition, match=r"'t5-large' is not in .*; download it with: hf download t5-large"):
        load_musicgen(find_musicgen(tmp_path))
