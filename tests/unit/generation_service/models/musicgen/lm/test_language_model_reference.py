# ruff: noqa: E402
"""Greedy codes against those that audiocraft made, every request by itself there and in changing company here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

torch = pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("transformers", reason="the text encoder is transformers'")

from torch import Tensor

from generation_service.models.base import GenerationParameters
from generation_service.models.musicgen.checkpoints.audiocraft_file import Checkpoint, parse_config, read_checkpoint
from generation_service.models.musicgen.checkpoints.config import lm_config
from generation_service.models.musicgen.conditioners.t5_conditioner import TextConditioner
from generation_service.models.musicgen.delay_pattern import DelayedCodes
from generation_service.models.musicgen.lm.kv_cache import KvCache
from generation_service.models.musicgen.lm.language_model import LanguageModel
from generation_service.models.musicgen.sampling import Sampler
from tests.support.checkpoints import SMALL, lm_config_dump, lm_weights
from tests.support.golden_codes import PROMPTS, SMALL_PROMPTS, golden, total, total_of_t5, weights_in


def run(checkpoint: Checkpoint, prompts: Sequence[tuple[str, int, int]]) -> list[Tensor]:
    """Greedy codes of each, [K, frames], all in one batch that they join and leave."""
    config = lm_config(checkpoint)
    lm, conditioner = LanguageModel(checkpoint, config, "fp32"), TextConditioner(checkpoint, config)
    sampler = Sampler(GenerationParameters("", 1, 0, temperature=0))
    runs = []
    for prompt, frames, joins in prompts:
        codes = DelayedCodes(config.delays, frames, config.card)
        cache = KvCache(config, codes.steps)
        lm.condition(cache, conditioner.encode(prompt))
        runs.append((joins, codes, cache))
    for now in range(200):
        going = [(codes, cache) for joins, codes, cache in runs if joins <= now and not codes.is_done]
        if not going:
            break
        logits = lm.step(torch.stack([codes.last for codes, _ in going]), [cache for _, cache in going])
        for (codes, _), own in zip(going, logits, strict=True):
            codes.add(sampler.draw(own))
    return [codes.frames(0, frames) for (_, frames, _), (_, codes, _) in zip(prompts, runs, strict=True)]


@pytest.mark.parametrize("channels", ["mono", "stereo"])
@pytest.mark.parametrize("count", [1, 2, 8])
def test_greedy_codes_equal_those_of_audiocraft(
    channels: str, count: int, request: pytest.FixtureRequest, t5: None
) -> None:
    folder: Path = request.getfixturevalue(channels)
    expected = golden(f"{channels}/prompts", weights_in(folder))[:count]
    assert len({tuple(codes[:, 0].tolist()) for codes in expected}) > count // 2, "prompts matter in the reference"
    made = run(read_checkpoint(folder / "state_dict.bin"), PROMPTS[:count])
    for (prompt, _, _), codes, want in zip(PROMPTS, made, expected, strict=False):
        assert torch.equal(codes, want), prompt


@pytest.mark.parametrize("channels", ["mono", "stereo"])
def test_so_do_those_of_a_model_of_musicgen_smalls_shape(channels: str, t5: None) -> None:
    name, is_stereo = f"small-{channels}", channels == "stereo"
    config = parse_config(yaml.safe_dump(lm_config_dump(SMALL, stereo=is_stereo)), Path(name))
    weights = lm_weights(SMALL, 8 if is_stereo else 4, seed=0)
    checkpoint = Checkpoint(Path(name), lambda: weights, config, digest="")
    expected = golden(f"{name}/prompts", {f"{name}/lm": total(weights), "t5": total_of_t5()})
    for (prompt, _, _), codes, want in zip(SMALL_PROMPTS, run(checkpoint, SMALL_PROMPTS), expected, strict=True):
        assert torch.equal(codes, want), prompt
