# ruff: noqa: E402
"""The tensors of an adapter are checked against the model before they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

from safetensors.torch import save_file
from torch import Tensor

from dgx_music.errors import FailedPrecondition
from generation_service.models.musicgen.adapters.adapter_file import (
    AdapterFile,
    adapter_digest,
    load_adapter,
    read_adapter,
)
from generation_service.models.musicgen.checkpoints.checkpoint_reader import read_checkpoint
from generation_service.models.musicgen.checkpoints.config import parse_lm_config
from tests.support.adapter_files import FC1, write_adapter_files


def read(folder: Path, model: Path) -> AdapterFile:
    checkpoint = read_checkpoint(model)
    return read_adapter(folder, parse_lm_config(checkpoint), checkpoint.headers)


def tensors(**changed: Tensor | None) -> dict[str, Tensor]:
    """A fitting adapter for one module with a rank of 2, with some tensors replaced or left out."""
    own = {"lora_A": torch.ones(2, 64), "lora_B": torch.ones(256, 2)}
    return {f"{FC1}.{name}.weight": tensor for name, tensor in {**own, **changed}.items() if tensor is not None}


def test_factors_are_read_in_fp32_and_scaled(tmp_path: Path, mono: Path) -> None:
    write_adapter_files(tmp_path, tensors(lora_B=torch.full((256, 2), 0.5, dtype=torch.bfloat16)), lora_alpha=8)
    (module,) = load_adapter(read(tmp_path, mono))
    assert module.a.dtype == module.b.dtype == torch.float32
    assert torch.equal(module.b, torch.full((256, 2), 0.5 * 8 / 2))
    assert torch.equal(module.delta(), torch.full((256, 64), 4.0))


@pytest.mark.parametrize(
    ("content", "settings", "problem"),
    [
        (tensors(lora_A=torch.ones(2, 32)), {}, r"fc1\.lora_A\.weight has the shape \[2, 32\]; .* expect \[2, 64\]"),
        (tensors(lora_B=torch.ones(128, 2)), {}, r"fc1\.lora_B\.weight has the shape \[128, 2\]; .* \[256, 2\]"),
        (tensors(), {"r": 4}, r"fc1\.lora_A\.weight has the shape \[2, 64\]; .* expect \[4, 64\]"),
        (tensors(lora_A=None), {}, r"fc1\.lora_B\.weight has no counterpart"),
        (tensors(lora_A=torch.ones(2, 64, dtype=torch.int32)), {}, r"fc1\.lora_A\.weight is of type I32"),
        (tensors(), {"target_modules": ["fc2"]}, r"fc1\.lora_A\.weight is not among the target_modules"),
        (tensors(lora_magnitude_vector=torch.ones(256)), {}, r"lora_magnitude_vector\.weight is no factor of a LoRA"),
        ({"base_model.model.other.lora_A.weight": torch.ones(2, 2)}, {}, "lora_A.weight has no counterpart"),
        (
            {f"base_model.model.other.lora_{which}.weight": torch.ones(2, 2) for which in "AB"},
            {"target_modules": ["other"]},
            r"other\.lora_A\.weight belongs to a module that this model's language model does not have",
        ),
        ({}, {}, "has no tensors"),
    ],
)
def test_first_tensor_that_does_not_fit_is_named(
    tmp_path: Path, mono: Path, content: dict[str, Tensor], settings: dict[str, Any], problem: str
) -> None:
    write_adapter_files(tmp_path, content, **settings)
    with pytest.raises(FailedPrecondition, match=problem) as caught:
        read(tmp_path, mono)
    assert caught.value.reason == "ADAPTER_INVALID"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_values_that_could_overflow_are_refused(tmp_path: Path, mono: Path, value: float) -> None:
    write_adapter_files(tmp_path, tensors(lora_A=torch.full((2, 64), value)))
    with pytest.raises(FailedPrecondition, match=r"fc1\.lora_A\.weight has values that are not finite"):
        load_adapter(read(tmp_path, mono))


def test_truncated_file_is_refused(tmp_path: Path, mono: Path) -> None:
    path = write_adapter_files(tmp_path, tensors()) / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FailedPrecondition, match="truncated or not a safetensors file"):
        read(tmp_path, mono)


def test_pickle_is_refused_with_the_way_out(tmp_path: Path, mono: Path) -> None:
    write_adapter_files(tmp_path, tensors())
    (tmp_path / "adapter_model.safetensors").rename(tmp_path / "adapter_model.bin")
    with pytest.raises(FailedPrecondition, match=r"a pickle; save it again with safe_serialization=True"):
        read(tmp_path, mono)


def test_file_that_was_replaced_in_between_is_refused(tmp_path: Path, mono: Path) -> None:
    write_adapter_files(tmp_path, tensors())
    found = read(tmp_path, mono)
    save_file({name: tensor[:1] for name, tensor in tensors().items()}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(FailedPrecondition, match="was replaced during loading"):
        load_adapter(found)


def test_digest_changes_with_the_configuration_and_with_the_tensors(tmp_path: Path) -> None:
    digests = {adapter_digest(write_adapter_files(tmp_path, tensors()))}
    digests.add(adapter_digest(write_adapter_files(tmp_path, tensors(), lora_alpha=9)))
    digests.add(adapter_digest(write_adapter_files(tmp_path, tensors(lora_A=torch.zeros(2, 64)))))
    assert len(digests) == 3
