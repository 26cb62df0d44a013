"""Absorbed cross-attention: the same logits as with the projected prompt, within rounding."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

from generation_service.models.musicgen.checkpoints.checkpoint import read_checkpoint  # noqa: E402
from generation_service.models.musicgen.checkpoints.config import parse_lm_config  # noqa: E402
from generation_service.models.musicgen.lm.kv_cache import KvCache, KvCachePool  # noqa: E402
from generation_service.models.musicgen.lm.language_model import LanguageModel  # noqa: E402
from generation_service.models.musicgen.lm.linear import Precision  # noqa: E402

STEPS = 12


def language_model(folder: Path, precision: Precision = "fp32") -> LanguageModel:
    checkpoint = read_checkpoint(folder / "state_dict.bin")
    return LanguageModel(checkpoint, parse_lm_config(checkpoint), precision)


def prompt(lm: LanguageModel, tokens: int) -> torch.Tensor:
    return torch.randn(tokens, lm.config.dim, generator=torch.Generator().manual_seed(tokens))


@pytest.mark.parametrize("channels", ["mono", "stereo"])
def test_absorbed_prompt_has_the_logits_of_the_projected_prompt(channels: str, request: pytest.FixtureRequest) -> None:
    lm = language_model(request.getfixturevalue(channels))
    codes = torch.randint(lm.config.card, (lm.config.n_q, STEPS), generator=torch.Generator().manual_seed(1))
    absorbed, projected, stepped = (KvCache(lm.config, STEPS) for _ in range(3))
    text = prompt(lm, lm.max_absorbed_tokens)
    lm.condition(absorbed, text)
    lm.condition(stepped, text)
    lm.max_absorbed_tokens = 0
    lm.condition(projected, text)
    assert absorbed.absorbed is not None
    assert absorbed.cross is None
    assert projected.absorbed is None
    for cache in (absorbed, projected):
        lm.prefill(codes[:, :-1], cache)
    for n in range(STEPS - 1):
        lm.step(codes[None, :, n], [stepped])
    prefilled, expected, one_by_one = lm.step(codes[None, :, -1].expand(3, -1), [absorbed, projected, stepped])
    torch.testing.assert_close(prefilled, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(one_by_one, expected, atol=1e-5, rtol=0)


def test_only_short_prompts_are_absorbed_and_their_size_is_counted(mono: Path) -> None:
    lm = language_model(mono)
    memory = KvCachePool(lm.config, 1 << 30, lm.max_absorbed_tokens)
    for tokens in (1, lm.max_absorbed_tokens, lm.max_absorbed_tokens + 1):
        cache = KvCache(lm.config, 1)
        lm.condition(cache, prompt(lm, tokens))
        assert (cache.absorbed is None) == (tokens > lm.max_absorbed_tokens)
        size = sum(layer.scores.nbytes + layer.outputs.nbytes for layer in cache.absorbed or ())
        size += sum(layer.nbytes for layer in cache.cross or ())
        assert memory.size_bytes(1, tokens) - memory.size_bytes(1, 0) == size


def test_int8_does_not_absorb_prompts(mono: Path) -> None:
    assert language_model(mono, "int8").max_absorbed_tokens == 0
