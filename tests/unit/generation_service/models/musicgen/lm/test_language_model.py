"""The language model: codes and logits of a request do not depend, to the last bit, on the others in the batch."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

from torch import Tensor  # noqa: E402

from generation_service.models.base import GenerationParameters  # noqa: E402
from generation_service.models.musicgen.checkpoints.checkpoint import read_checkpoint  # noqa: E402
from generation_service.models.musicgen.checkpoints.config import parse_lm_config  # noqa: E402
from generation_service.models.musicgen.delay_pattern import DelayedCodes  # noqa: E402
from generation_service.models.musicgen.lm.kv_cache import KvCache  # noqa: E402
from generation_service.models.musicgen.lm.language_model import LanguageModel  # noqa: E402
from generation_service.models.musicgen.sampling import Sampler  # noqa: E402


class Run:
    """One request to the language model. Its prompt is random vectors instead of T5's output."""

    def __init__(self, lm: LanguageModel, seed: int, frames: int, *, temperature: float = 1.0) -> None:
        config = lm.config
        self.codes = DelayedCodes(config.delays, frames, config.card)
        self.frames = frames
        self.cache = KvCache(config, self.codes.total_steps)
        self.sampler = Sampler(GenerationParameters("", 1, seed, temperature=temperature, top_k=20))
        text = torch.randn(2 + seed % 7, config.dim, generator=torch.Generator().manual_seed(seed))
        lm.condition(self.cache, text if seed % 5 else None)
        self.logits: list[Tensor] = []

    def accept(self, logits: Tensor) -> None:
        self.logits.append(logits.clone())
        self.codes.append(self.sampler.sample(logits))

    @property
    def result(self) -> tuple[Tensor, Tensor]:
        return self.codes.frames(0, self.frames), torch.stack(self.logits)


def step(lm: LanguageModel, runs: list[Run]) -> None:
    for run, logits in zip(
        runs, lm.step(torch.stack([run.codes.newest for run in runs]), [run.cache for run in runs]), strict=True
    ):
        run.accept(logits)


@pytest.fixture(params=["fp32", "int8"])
def lm(request: pytest.FixtureRequest, mono: Path) -> LanguageModel:
    checkpoint = read_checkpoint(mono / "state_dict.bin")
    return LanguageModel(checkpoint, parse_lm_config(checkpoint), request.param)


def test_sampled_codes_do_not_depend_on_the_batch(lm: LanguageModel) -> None:
    """Requests of different lengths join at different steps and leave when they are done."""
    plans = [(seed, 6 + 5 * seed % 17, seed * 2 // 3) for seed in range(9)]  # seed, frames, joins at step
    alone = []
    for seed, frames, _ in plans:
        run = Run(lm, seed, frames)
        while not run.codes.is_done:
            step(lm, [run])
        alone.append(run.result)

    runs = [(joins_at, Run(lm, seed, frames)) for seed, frames, joins_at in plans]
    sizes = set()
    for now in range(100):
        active = [run for joins_at, run in runs if joins_at <= now and not run.codes.is_done]
        if not active and all(run.codes.is_done for _, run in runs):
            break
        sizes.add(len(active))
        step(lm, active)
    assert len(sizes) > 4, "the batch size changed"
    for (codes, logits), (_, run) in zip(alone, runs, strict=True):
        assert torch.equal(run.result[0], codes)
        assert torch.equal(run.result[1], logits), "the logits are equal to the last bit"


def test_codes_depend_on_prompt_and_seed(lm: LanguageModel) -> None:
    results = []
    for seed in (1, 2):
        run = Run(lm, seed, 8)
        while not run.codes.is_done:
            step(lm, [run])
        results.append(run.result[0])
    assert not torch.equal(*results)


@pytest.mark.parametrize("prompted", [True, False])
@pytest.mark.parametrize("channels", ["mono", "stereo"])
def test_prefill_equals_single_steps(channels: str, prompted: bool, request: pytest.FixtureRequest) -> None:
    checkpoint = read_checkpoint(request.getfixturevalue(channels) / "state_dict.bin")
    lm = LanguageModel(checkpoint, parse_lm_config(checkpoint), "fp32")
    codes = torch.randint(lm.config.card + 1, (lm.config.n_q, 61), generator=torch.Generator().manual_seed(1))
    text = torch.randn(5, lm.config.dim, generator=torch.Generator().manual_seed(2)) if prompted else None
    steps, passes = KvCache(lm.config, 61), KvCache(lm.config, 61)
    for cache in (steps, passes):
        lm.condition(cache, text)
    for n in range(60):
        lm.step(codes[None, :, n], [steps])
    for first, end in ((0, 1), (1, 33), (33, 60)):
        lm.prefill(codes[:, first:end], passes)
    assert passes.position == steps.position == 60
    for index in range(lm.config.num_layers):
        torch.testing.assert_close(steps.view(index, 60), passes.view(index, 60), atol=1e-5, rtol=0)
    expected, actual = lm.step(codes[None, :, 60], [steps]), lm.step(codes[None, :, 60], [passes])
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


def test_rewound_cache_equals_a_new_one(lm: LanguageModel) -> None:
    codes = torch.randint(lm.config.card, (lm.config.n_q, 20), generator=torch.Generator().manual_seed(1))
    new, used = KvCache(lm.config, 20), KvCache(lm.config, 20)
    for cache in (new, used):
        lm.condition(cache, torch.randn(5, lm.config.dim, generator=torch.Generator().manual_seed(2)))
    lm.prefill(codes.flip(1), used)
    used.rewind()
    for cache in (new, used):
        lm.prefill(codes[:, :19], cache)
    assert torch.equal(lm.step(codes[None, :, 19], [new]), lm.step(codes[None, :, 19], [used]))
