"""The resolution of "auto" to a device and a precision."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

pytest.importorskip("torch", reason="devices are torch's")

import torch

from dgx_music.errors import FailedPrecondition
from generation_service.models.device import empty_device_cache, forbid_tf32, resolve_device

has_cuda = torch.cuda.is_available()


def test_cpu_precision_defaults_to_fp32() -> None:
    assert resolve_device("cpu", "auto") == resolve_device("cpu", "fp32") == ("cpu", "fp32")
    assert resolve_device("cpu", "int8") == ("cpu", "int8")


def test_unsupported_precision_error_lists_the_supported_ones() -> None:
    with pytest.raises(
        FailedPrecondition, match="DGX_MUSIC_PRECISION is bf16, which cpu does not support; use fp32 or int8"
    ):
        resolve_device("cpu", "bf16")


@pytest.mark.skipif(has_cuda, reason="there is a GPU")
def test_without_gpu_auto_is_cpu_and_cuda_is_rejected() -> None:
    assert resolve_device("auto", "auto")[0] == "cpu"
    with pytest.raises(FailedPrecondition, match="finds none; set it to cpu, or run `dgx-music doctor`"):
        resolve_device("cuda", "auto")


@pytest.mark.parametrize("name", [None, "cuda"])
def test_there_is_no_cache_to_empty_while_torch_is_being_imported(monkeypatch, name) -> None:
    partial = ModuleType("torch")
    if name is not None:
        setattr(partial, name, ModuleType("torch.cuda"))
    monkeypatch.setitem(sys.modules, "torch", partial)
    empty_device_cache()


def test_fp32_is_multiplied_as_fp32() -> None:
    backends = (torch.backends.cudnn, torch.backends.cuda.matmul)
    defaults = [backend.allow_tf32 for backend in backends]
    try:
        for backend in backends:
            backend.allow_tf32 = True
        forbid_tf32()
        assert [backend.allow_tf32 for backend in backends] == [False, False]
    finally:
        for backend, default in zip(backends, defaults, strict=True):
            backend.allow_tf32 = default


@pytest.mark.cuda
@pytest.mark.skipif(not has_cuda, reason="needs a GPU")
def test_with_gpu_auto_is_cuda_in_bf16() -> None:
    assert resolve_device("auto", "auto") == resolve_device("cuda", "auto") == ("cuda", "bf16")
    torch.zeros(1, device="cuda")
