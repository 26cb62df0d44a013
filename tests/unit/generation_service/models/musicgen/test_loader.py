# ruff: noqa: E402
"""Loading MusicGen: devices, precisions, memory, and invalid parts."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("transformers", reason="the text encoder is transformers'")


from dgx_music.errors import FailedPrecondition, ResourceExhausted
from generation_service.config import KvPrecisionChoice, PrecisionName
from generation_service.models.base import GenerationParameters
from generation_service.models.musicgen import loader
from generation_service.models.musicgen.code_generator import Reservation
from generation_service.models.musicgen.loader import (
    FoundModel,
    find_musicgen,
    load_musicgen,
    load_resident,
)
from generation_service.models.musicgen.resident import operation_selection
from generation_service.rpc.converters import model_to_proto
from tests.support.checkpoints import write_checkpoint, write_lm_with_config
from tests.support.compression_checkpoints import CodecShape, write_compression_checkpoint

HOP = 640
has_cuda = torch.cuda.is_available()


@pytest.fixture
def found(mono: Path, t5: None) -> FoundModel:
    return find_musicgen(mono)


def test_memory_is_what_a_full_batch_needs_or_what_there_is(found: FoundModel) -> None:
    for_one = load_resident(found, "cpu", max_batch_size=4).memory.limit_bytes // 4
    assert load_resident(found, "cpu", max_batch_size=3).memory.limit_bytes == 3 * for_one
    small = load_resident(found, "cpu", max_batch_size=1)
    assert small.memory.limit_bytes == small.memory.size_bytes(Reservation(1503, 64, branches=4, has_negative=True))
    model = load_resident(found, "cpu", max_batch_size=3, kv_bytes=2 * for_one)
    assert model.memory.limit_bytes == 2 * for_one
    with pytest.raises(FailedPrecondition, match="DGX_MUSIC_DEVICES") as error:
        load_resident(found, "cpu", max_batch_size=3, kv_bytes=for_one - 1)
    assert error.value.reason == "GPU_MEMORY"


def test_batch_has_as_many_places_as_asked_for(found: FoundModel) -> None:
    model = load_resident(found, "cpu", max_batch_size=2)
    request = GenerationParameters("", HOP, 1)
    states = [model.prefill(request) for _ in range(2)]
    with pytest.raises(ResourceExhausted, match="all 2 places in the batch are taken"):
        model.prefill(request)
    model.release(states[0])
    model.prefill(request)


@pytest.mark.parametrize(
    ("precision", "kv_precision", "expected", "dtype"),
    [
        ("bf16", "auto", "bf16", torch.bfloat16),
        ("int8", "auto", "bf16", torch.bfloat16),
        ("fp32", "auto", "fp32", torch.float32),
        ("fp32", "bf16", "bf16", torch.bfloat16),
        ("bf16", "fp8", "fp8", torch.float8_e4m3fn),
    ],
)
def test_precision_of_the_kv_cache(
    found: FoundModel, precision: PrecisionName, kv_precision: KvPrecisionChoice, expected: str, dtype: torch.dtype
) -> None:
    found = dataclasses.replace(found, precision=precision, kv_precision=kv_precision)
    model = load_resident(found, "cpu", max_batch_size=1)
    assert model._generator.memory.layers[0].keys.dtype == dtype
    execution = model.execution()
    assert (execution.device, execution.precision, execution.kv_precision) == ("cpu", precision, expected)
    assert execution.max_batch_size == 1
    assert execution.load_seconds > 0


def test_chosen_kernels_reach_the_message_that_describes_the_model(
    found: FoundModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operation_selection, "_MEASURED_BYTES", 1 << 16)
    monkeypatch.setattr(operation_selection, "MEASURED_POSITIONS", 64)
    found = dataclasses.replace(found, precision_reason="fp32: it is exact")
    model = load_resident(found, "cpu", max_batch_size=1, timer=lambda calls: 12.5)
    message = model_to_proto(found.info, is_default=True, is_loaded=True, execution=model.execution())
    first, *others = message.execution.kernels
    assert (first.operation, first.implementation, first.reason) == ("precision", "fp32", "fp32: it is exact")
    operations = {kernel.operation.split()[0] for kernel in others}
    assert operations == {"linear", "attention", "sampling", "branches", "step"}
    assert {kernel.implementation for kernel in others} == {"torch"}, "Triton does not run on a CPU"
    assert all(dict(kernel.microseconds) == {"torch": 12.5} and "triton" in kernel.reason for kernel in others)


def test_precision_of_a_gpu_is_part_of_the_version_and_has_a_reason(
    mono: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "resolve_device", lambda device, precision: ("cuda", "bf16"))
    fast = find_musicgen(mono, device="cuda", memory_gb_per_second=4917.0)
    slow = find_musicgen(mono, device="cuda", memory_gb_per_second=1e-3)
    assert (fast.precision, slow.precision) == ("bf16", "int8")
    assert "-bf16-cuda" in fast.info.version
    assert "-int8-cuda" in slow.info.version
    assert "int8" in slow.precision_reason
    chosen = find_musicgen(mono, device="cuda", precision="bf16", memory_gb_per_second=1e-3)
    assert (chosen.precision, chosen.precision_reason) == ("bf16", "")


def test_version_names_the_decode_loop(found: FoundModel) -> None:
    """Its sampling decides which codes a request gets, just as the weights do."""
    assert "-s2-" in found.info.version


def test_unsupported_precision_error_names_the_setting(mono: Path) -> None:
    with pytest.raises(
        FailedPrecondition, match="DGX_MUSIC_PRECISION is bf16, which cpu does not support; use fp32 or int8"
    ):
        find_musicgen(mono, device="cpu", precision="bf16")


@pytest.mark.skipif(has_cuda, reason="there is a GPU")
def test_without_a_gpu_auto_selects_the_cpu_and_cuda_is_rejected(mono: Path) -> None:
    found = find_musicgen(mono, device="auto", precision="auto")
    assert (found.device, found.precision) == ("cpu", "fp32")
    with pytest.raises(FailedPrecondition, match="DGX_MUSIC_DEVICES asks for a GPU"):
        find_musicgen(mono, device="cuda")


@pytest.mark.cuda
@pytest.mark.skipif(not has_cuda, reason="needs an NVIDIA GPU that torch can use")
def test_with_a_gpu_auto_selects_cuda_in_bf16(mono: Path) -> None:
    found = find_musicgen(mono, device="auto", precision="auto")
    assert (found.device, found.precision) == ("cuda", "bf16")
    assert found.info.version != find_musicgen(mono).info.version


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
    write_lm_with_config(tmp_path, lambda config: config["conditioners"]["description"]["t5"].update(name="t5-11b"))
    with pytest.raises(FailedPrecondition, match=r"'t5-11b' is not in .*; download it with: hf download t5-11b"):
        load_musicgen(find_musicgen(tmp_path))
