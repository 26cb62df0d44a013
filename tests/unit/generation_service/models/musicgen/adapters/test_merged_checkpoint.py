# ruff: noqa: E402
"""A checkpoint with merged adapters has other tensors and another digest."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

from generation_service.models.musicgen.adapters.adapter_file import read_adapter
from generation_service.models.musicgen.adapters.merged_checkpoint import merge_adapters
from generation_service.models.musicgen.checkpoints.checkpoint import Checkpoint
from generation_service.models.musicgen.checkpoints.checkpoint_reader import read_checkpoint
from generation_service.models.musicgen.checkpoints.config import parse_lm_config
from tests.support.adapter_files import write_adapter_files
from tests.support.checkpoints import TINY, write_lm

LAYER = "base_model.model.model.decoder.layers.1.self_attn.k_proj"
CHANGED = "transformer.layers.1.self_attn.in_proj_weight"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return read_checkpoint(write_lm(tmp_path_factory.mktemp("half"), TINY, dtype=torch.float16))


def merge(checkpoint: Checkpoint, folder: Path, *scales: float) -> Checkpoint:
    factors = {f"{LAYER}.lora_A.weight": torch.ones(2, 64), f"{LAYER}.lora_B.weight": torch.full((64, 2), 0.25)}
    write_adapter_files(folder, factors, target_modules=["k_proj"])
    file = read_adapter(folder, parse_lm_config(checkpoint), checkpoint.headers)
    return merge_adapters(checkpoint, [(file, scale) for scale in scales])


def test_only_the_rows_of_the_module_change(checkpoint: Checkpoint, tmp_path: Path) -> None:
    before, merged = checkpoint.map_tensors(), merge(checkpoint, tmp_path, 0.5, 1.5)
    after = merged.map_tensors()
    assert after.keys() == before.keys()
    for name, tensor in before.items():
        expected = tensor
        if name == CHANGED:
            expected = tensor.float()
            expected[64:128] += 0.5 * (0.5 + 1.5)
        assert torch.equal(after[name], expected), name


def test_digest_depends_on_the_adapters_and_their_scales(checkpoint: Checkpoint, tmp_path: Path) -> None:
    digests = {merge(checkpoint, tmp_path, *scales).digest for scales in ((1.0,), (0.5,), (0.5, 1.0), (1.0, 0.5))}
    assert len({checkpoint.digest, *digests}) == 5
