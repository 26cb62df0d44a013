# ruff: noqa: E402
"""Adapters in captured steps on a GPU. What needs none is in `test_adapter_bank.py` and `test_model_adapters.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

from generation_service.models.base import AdapterUse
from generation_service.models.musicgen.adapters.adapter_registry import AdapterRegistry
from generation_service.models.musicgen.adapters.adapter_weights import AdapterWeights, AppliedAdapter, LowRankLayer
from generation_service.models.musicgen.checkpoints.checkpoint_reader import read_checkpoint
from generation_service.models.musicgen.checkpoints.config import parse_lm_config
from generation_service.models.musicgen.lm.device_linear import build_device_linear
from generation_service.models.musicgen.lm.layer_norm import LayerNorm
from generation_service.models.musicgen.resident.adapter_bank import AdapterBank
from tests.support.adapter_files import FC1, write_adapter_files
from tests.support.generator_runs import Plan, eager_generator, resident_generator, run_plans

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU that torch can use"),
]

WINDOW = 60


@pytest.fixture
def registry(mono: Path, tmp_path: Path) -> AdapterRegistry:
    for name, rank in (("jazz", 4), ("vinyl", 24)):
        generator = torch.Generator().manual_seed(rank)
        factors = {
            f"{FC1}.lora_A.weight": torch.randn(rank, 64, generator=generator) / 8,
            f"{FC1}.lora_B.weight": torch.randn(256, rank, generator=generator) / 2,
        }
        write_adapter_files(tmp_path / name, factors, r=rank, lora_alpha=rank)
    checkpoint = read_checkpoint(mono)
    return AdapterRegistry(tmp_path, "mono", parse_lm_config(checkpoint), checkpoint.headers)


def test_codes_equal_those_of_the_eager_generator(mono: Path, registry: AdapterRegistry) -> None:
    """The second adapter joins when steps with the first have been captured, and needs larger places."""
    uses: tuple[tuple[AdapterUse, ...], ...] = (
        (AdapterUse("jazz"),),
        (),
        (AdapterUse("vinyl", -0.5), AdapterUse("jazz", 2.0)),
    )
    plans = [
        Plan(5 + index, 30, joins_at=6 * index, sampling={"temperature": 0, "adapters": own})
        for index, own in enumerate(uses)
    ]
    resident = resident_generator(mono, window=WINDOW, slots=4, device_name="cuda")
    expected = run_plans(eager_generator(mono), plans, WINDOW, registry.load)
    for own, want in zip(run_plans(resident, plans, WINDOW, registry.load), expected, strict=True):
        assert np.array_equal(own, want)


def test_row_without_adapters_has_the_result_of_the_layer_alone() -> None:
    """GELU is the kernel's in one case and torch's in the other."""
    device = torch.device("cuda")
    generator = torch.Generator().manual_seed(1)
    weight = (torch.randn(4096, 1024, generator=generator) / 32).to(device)
    x = torch.randn(8, 1024, generator=generator).to(device)
    norm = LayerNorm(torch.ones(1024, device=device), torch.zeros(1024, device=device))
    base = build_device_linear(weight, "bf16", "triton")
    bank = AdapterBank(device, 4)
    linear = bank.adapt(base, "0.up")
    factors = LowRankLayer(torch.randn(16, 1024, generator=generator) / 32, torch.randn(4096, 16, generator=generator))
    bank.acquire([AppliedAdapter(AdapterWeights("jazz", "", {"0.up": factors}), 1.0)], [0])
    bank.select(torch.tensor([0, 4, 4, 0], device=device), rows_per_slot=2)
    for gelu in (False, True):
        adapted, plain = linear.normed(x, norm, gelu=gelu), base.normed(x, norm, gelu=gelu)
        assert torch.equal(adapted[2:6], plain[2:6])
        assert not torch.equal(adapted[:2], plain[:2])
