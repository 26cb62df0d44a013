# ruff: noqa: E402
"""Greedy codes equal those of audiocraft, which generated each request alone; here they share a changing batch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml

torch = pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("transformers", reason="the text encoder is transformers'")

from torch import Tensor

from generation_service.models.musicgen.checkpoints.checkpoint import Checkpoint
from generation_service.models.musicgen.checkpoints.checkpoint_reader import read_checkpoint
from generation_service.models.musicgen.checkpoints.config import parse_lm_config
from generation_service.models.musicgen.checkpoints.hub_networks import open_hub_text_encoder
from generation_service.models.musicgen.checkpoints.pickle_file import tensor_headers
from generation_service.models.musicgen.checkpoints.xp_config import parse_xp_config
from generation_service.models.musicgen.code_generator import Reservation
from generation_service.models.musicgen.conditioners.t5_conditioner import TextConditioner
from generation_service.models.musicgen.conditions import WindowConditions
from generation_service.models.musicgen.delay_pattern import DelayedCodes
from generation_service.models.musicgen.lm.kv_cache import KvCachePool
from generation_service.models.musicgen.lm.language_model import LanguageModel
from tests.support.checkpoints import WIDE, lm_config_dump, lm_weights
from tests.support.golden_codes import PROMPTS, WIDE_PROMPTS, checksum, checksums_of, golden, t5_checksum

GUIDANCE_SCALE = 3.0


def run(checkpoint: Checkpoint, prompts: Sequence[tuple[str, int, int]]) -> list[Tensor]:
    """Greedy codes of each prompt, [K, frames], in one batch that the requests join and leave."""
    config = parse_lm_config(checkpoint)
    lm, conditioner = LanguageModel(checkpoint, config, "fp32"), TextConditioner(checkpoint, config)
    memory = KvCachePool(config, 1 << 30)
    runs = []
    for prompt, frames, joins_at in prompts:
        codes = DelayedCodes(config.delays, frames, config.card)
        text = conditioner.encode(prompt)
        cache = memory.reserve(Reservation(codes.total_steps, 0 if text is None else len(text)))
        lm.begin_window(cache, WindowConditions.from_text(text))
        runs.append((joins_at, codes, cache))
    for now in range(200):
        active = [(codes, cache) for joins_at, codes, cache in runs if joins_at <= now and not codes.is_done]
        if not active:
            break
        newest = torch.from_numpy(np.stack([codes.newest for codes, _ in active]))
        conditional, unconditional = lm.step(newest, [cache for _, cache in active]).unbind(1)
        guided = unconditional + (conditional - unconditional) * GUIDANCE_SCALE
        for (codes, _), own in zip(active, guided.argmax(-1).numpy(), strict=True):
            codes.append(own)
    return [
        torch.from_numpy(codes.select_frames(0, frames))
        for (_, frames, _), (_, codes, _) in zip(prompts, runs, strict=True)
    ]


@pytest.mark.parametrize("channels", ["mono", "stereo"])
@pytest.mark.parametrize("count", [1, 2, 8])
def test_greedy_codes_equal_audiocraft(channels: str, count: int, request: pytest.FixtureRequest, t5: None) -> None:
    folder: Path = request.getfixturevalue(channels)
    expected = golden(f"{channels}/prompts", checksums_of(folder))[:count]
    assert len({tuple(codes[:, 0].tolist()) for codes in expected}) > count // 2, "the reference depends on the prompt"
    actual = run(read_checkpoint(folder / "state_dict.bin"), PROMPTS[:count])
    for (prompt, _, _), codes, want in zip(PROMPTS, actual, expected, strict=False):
        assert torch.equal(codes, want), prompt


@pytest.mark.slow
def test_greedy_codes_of_a_wide_model_equal_audiocraft(t5: None) -> None:
    """Its matrices have the size of musicgen-small's, which selects other kernels than the tiny model."""
    config = parse_xp_config(yaml.safe_dump(lm_config_dump(WIDE, stereo=False)), Path("wide"))
    weights = lm_weights(WIDE, 4, seed=0)
    checkpoint = Checkpoint(
        path=Path("wide"),
        config=config,
        headers=tensor_headers(weights, Path("wide")),
        map_tensors=lambda: weights,
        digest="",
        layout="audiocraft",
        open_text_encoder=partial(open_hub_text_encoder, config, Path("wide")),
        open_codec=lambda: pytest.fail("only codes are compared"),
    )
    expected = golden("wide/prompts", {"wide/lm": checksum(weights), "t5": t5_checksum()})
    for (prompt, _, _), codes, want in zip(WIDE_PROMPTS, run(checkpoint, WIDE_PROMPTS), expected, strict=True):
        assert torch.equal(codes, want), prompt
