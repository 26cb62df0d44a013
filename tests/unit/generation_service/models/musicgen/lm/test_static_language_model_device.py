"""The accelerator's path without a GPU.

On torch's meta device, tensors have shapes but no values, so waiting for a value is an error, as is most mixing of
devices.
"""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

from generation_service.models.musicgen.checkpoints.checkpoint import read_checkpoint  # noqa: E402
from generation_service.models.musicgen.checkpoints.config import parse_lm_config  # noqa: E402
from generation_service.models.musicgen.lm.linear import Precision  # noqa: E402
from generation_service.models.musicgen.lm.static_kv_cache import StaticKvCachePool  # noqa: E402
from generation_service.models.musicgen.lm.static_language_model import StaticLanguageModel  # noqa: E402


@pytest.mark.parametrize("channels", ["mono", "stereo"])
@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_step_does_not_synchronize_with_the_device(
    channels: str, precision: Precision, dtype: torch.dtype, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(channels)
    checkpoint = read_checkpoint(folder / "state_dict.bin")
    config = parse_lm_config(checkpoint)
    memory = StaticKvCachePool(config, 4, 600, dtype=dtype, device=torch.device("meta"))
    lm = StaticLanguageModel(checkpoint, config, precision, memory)
    caches = [memory.reserve(600, tokens) for tokens in (5, 0, 70)]
    for cache, tokens in zip(caches, (5, 0, 70), strict=True):
        lm.condition(cache, torch.zeros(tokens, config.dim) if tokens else None)
    lm.prefill(torch.zeros(config.n_q, 33, dtype=torch.int64), caches[0])
    logits = lm.step(torch.zeros(3, config.n_q, dtype=torch.int64), caches)
    assert [cache.position for cache in caches] == [34, 1, 1]
    assert (logits.device.type, logits.dtype) == ("meta", torch.float32)
    assert logits.shape == (3, 2, config.n_q, config.card)
    captured = lm._compute((2, 256, 64))
    assert captured.shape == (4, 2, config.n_q, config.card)
