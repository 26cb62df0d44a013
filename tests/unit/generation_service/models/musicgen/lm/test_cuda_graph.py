# ruff: noqa: E402
"""Captured CUDA graphs of decode steps."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

from generation_service.models.musicgen.checkpoints.checkpoint import read_checkpoint
from generation_service.models.musicgen.checkpoints.config import parse_lm_config
from generation_service.models.musicgen.lm.cuda_graph import CudaGraphRunner
from generation_service.models.musicgen.lm.static_kv_cache import StaticKvCachePool
from generation_service.models.musicgen.lm.static_language_model import StaticLanguageModel

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU that torch can use"),
]

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 3e-2)])
def test_replayed_graph_equals_the_eager_step(mono: Path, precision: str, tolerance: float) -> None:
    """Both also equal the CPU in fp32 within the precision, for requests at different positions."""
    checkpoint = read_checkpoint(mono / "state_dict.bin")
    config = parse_lm_config(checkpoint)
    graphs = CudaGraphRunner()
    models = []
    for name, device, runner in (("fp32", "cpu", None), (precision, "cuda", None), (precision, "cuda", graphs)):
        memory = StaticKvCachePool(config, 4, 600, dtype=PRECISIONS[name], device=torch.device(device))
        arguments = (checkpoint, config, name, memory)
        lm = StaticLanguageModel(*arguments, runner) if runner else StaticLanguageModel(*arguments)
        models.append((lm, [memory.reserve(600, 5) for _ in range(3)]))
    generator = torch.Generator().manual_seed(1)
    texts = [torch.randn(5, config.dim, generator=generator), None, torch.randn(70, config.dim, generator=generator)]
    for lm, caches in models:
        for cache, text in zip(caches, texts, strict=True):
            lm.condition(cache, text)
    for now in range(300):  # Reaches the second length bucket.
        first = 0 if now % 4 else 1
        codes = torch.randint(0, config.card, (3 - first, config.n_q), generator=generator)
        exact, eager, replayed = (lm.step(codes, caches[first:]).cpu() for lm, caches in models)
        assert (replayed - eager).norm() <= 1e-3 * eager.norm()
        assert (replayed - exact).norm() <= tolerance * exact.norm()
    assert 1 < len(graphs) <= 6, "two length buckets"
