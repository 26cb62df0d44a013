"""What can be seen of a GPU's path without one: on torch's meta device tensors have shapes and no values, so that
whatever waits for a value is an error, and most of what mixes devices."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

from generation_service.models.musicgen.checkpoints.audiocraft_file import read_checkpoint  # noqa: E402
from generation_service.models.musicgen.checkpoints.config import lm_config  # noqa: E402
from generation_service.models.musicgen.lm.linear import Precision  # noqa: E402
from generation_service.models.musicgen.lm.static_kv_cache import StaticKv  # noqa: E402
from generation_service.models.musicgen.lm.static_language_model import StaticLanguageModel  # noqa: E402


@pytest.mark.parametrize("channels", ["mono", "stereo"])
@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_a_step_stays_on_the_device_and_waits_for_nothing(
    channels: str, precision: Precision, dtype: torch.dtype, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(channels)
    checkpoint = read_checkpoint(folder / "state_dict.bin")
    config = lm_config(checkpoint)
    memory = StaticKv(config, 4, 600, dtype=dtype, device=torch.device("meta"))
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
