"""Which device and precision are meant."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="devices are torch's")

import torch

from dgx_music.errors import FailedPrecondition
from generation_service.models.device import choose, device_in_use

has_cuda = torch.cuda.is_available()


def test_on_the_cpu_precision_is_fp32_unless_int8_is_asked_for() -> None:
    assert choose("cpu", "auto") == choose("cpu", "fp32") == ("cpu", "fp32")
    assert choose("cpu", "int8") == ("cpu", "int8")


def test_a_precision_that_the_device_has_not_names_those_it_has() -> None:
    with pytest.raises(FailedPrecondition, match="DGX_MUSIC_PRECISION is bf16; on cpu it can be fp32 or int8"):
        choose("cpu", "bf16")


@pytest.mark.skipif(has_cuda, reason="there is a GPU")
def test_without_a_gpu_auto_is_the_cpu_and_cuda_is_refused() -> None:
    assert choose("auto", "auto")[0] == "cpu"
    assert device_in_use() == "cpu"
    with pytest.raises(FailedPrecondition, match="finds no GPU; dgx-music doctor says more"):
        choose("cuda", "auto")


@pytest.mark.cuda
@pytest.mark.skipif(not has_cuda, reason="needs a GPU")
def test_with_a_gpu_auto_is_cuda_in_bf16() -> None:
    assert choose("auto", "auto") == choose("cuda", "auto") == ("cuda", "bf16")
    torch.zeros(1, device="cuda")
    assert device_in_use() == torch.cuda.get_device_name()
