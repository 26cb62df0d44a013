"""Greedy codes against audiocraft itself, every request by itself there and in changing company here."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

from torch import Tensor  # noqa: E402

from generation_service.model import GenerationParameters  # noqa: E402
from generation_service.musicgen.checkpoint import read_checkpoint  # noqa: E402
from generation_service.musicgen.config import lm_config  # noqa: E402
from generation_service.musicgen.delay import DelayedCodes  # noqa: E402
from generation_service.musicgen.kv_cache import KvCache  # noqa: E402
from generation_service.musicgen.lm import LanguageModel  # noqa: E402
from generation_service.musicgen.sampling import Sampler  # noqa: E402

pytestmark = pytest.mark.filterwarnings("default")

REQUESTS = [
    # prompt, frames, joins at step
    ("calm piano", 40, 0),
    ("an energetic drum and bass track at 174 bpm, with a deep sub and chopped breaks", 70, 0),
    ("lofi", 12, 5),
    ("", 20, 6),
    ("a string quartet, slow, in a large hall", 33, 6),
    ("80s synthwave", 50, 13),
    ("x", 1, 20),
    ("solo cello with long notes and much vibrato; close and warm", 25, 30),
]


@pytest.fixture(scope="module")
def audiocraft() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("audiocraft", reason="the reference is audiocraft; make setup-audiocraft")
        from audiocraft.models import loaders
    return loaders


@functools.cache
def expected(loaders: Any, folder: Path) -> list[Tensor]:
    from audiocraft.modules.conditioners import ConditioningAttributes

    lm = loaders.load_lm_model(str(folder))
    return [
        lm.generate(
            conditions=[ConditioningAttributes(text={"description": prompt or None})],
            max_gen_len=frames,
            use_sampling=False,
        )[0]
        for prompt, frames, _ in REQUESTS
    ]


@pytest.mark.parametrize("channels", ["mono", "stereo"])
@pytest.mark.parametrize("count", [1, 2, 8])
def test_greedy_codes_equal_those_of_audiocraft(
    channels: str, count: int, request: pytest.FixtureRequest, audiocraft: Any, t5: None
) -> None:
    from generation_service.musicgen.conditioner import TextConditioner

    folder = request.getfixturevalue(channels)
    checkpoint = read_checkpoint(folder / "state_dict.bin")
    config = lm_config(checkpoint)
    lm, conditioner = LanguageModel(checkpoint, config, "fp32"), TextConditioner(checkpoint, config)
    sampler = Sampler(GenerationParameters("", 1, 0, temperature=0))
    runs = []
    for prompt, frames, joins in REQUESTS[:count]:
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

    reference = expected(audiocraft, folder)[:count]
    assert len({tuple(codes[:, 0].tolist()) for codes in reference}) > count // 2, "prompts matter in the reference"
    for (prompt, frames, _), (_, codes, _), want in zip(REQUESTS, runs, reference, strict=False):
        assert torch.equal(codes.frames(0, frames), want), prompt
