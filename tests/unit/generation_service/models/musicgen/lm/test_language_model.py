"""The language model alone: a request's codes and logits are its own, to the last bit, in any company."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

from torch import Tensor  # noqa: E402

from dgx_music.errors import ResourceExhausted  # noqa: E402
from generation_service.models.base import GenerationParameters  # noqa: E402
from generation_service.models.musicgen.checkpoints.audiocraft_file import read_checkpoint  # noqa: E402
from generation_service.models.musicgen.checkpoints.config import lm_config  # noqa: E402
from generation_service.models.musicgen.delay_pattern import DelayedCodes  # noqa: E402
from generation_service.models.musicgen.lm.kv_cache import KvCache, KvMemory  # noqa: E402
from generation_service.models.musicgen.lm.language_model import LanguageModel  # noqa: E402
from generation_service.models.musicgen.lm.linear import Int8Linear, Precision, make_linear  # noqa: E402
from generation_service.models.musicgen.sampling import Sampler  # noqa: E402


class Run:
    """One request on the language model; its prompt is random vectors instead of T5's."""

    def __init__(self, lm: LanguageModel, seed: int, frames: int, *, temperature: float = 1.0) -> None:
        config = lm.config
        self.codes = DelayedCodes(config.delays, frames, config.card)
        self.frames = frames
        self.cache = KvCache(config, self.codes.steps)
        self.sampler = Sampler(GenerationParameters("", 1, seed, temperature=temperature, top_k=20))
        text = torch.randn(2 + seed % 7, config.dim, generator=torch.Generator().manual_seed(seed))
        lm.condition(self.cache, text if seed % 5 else None)
        self.logits: list[Tensor] = []

    def take(self, logits: Tensor) -> None:
        self.logits.append(logits.clone())
        self.codes.add(self.sampler.draw(logits))

    @property
    def result(self) -> tuple[Tensor, Tensor]:
        return self.codes.frames(0, self.frames), torch.stack(self.logits)


def step(lm: LanguageModel, runs: list[Run]) -> None:
    for run, logits in zip(
        runs, lm.step(torch.stack([run.codes.last for run in runs]), [run.cache for run in runs]), strict=True
    ):
        run.take(logits)


@pytest.fixture(params=["fp32", "int8"])
def lm(request: pytest.FixtureRequest, mono: Path) -> LanguageModel:
    checkpoint = read_checkpoint(mono / "state_dict.bin")
    return LanguageModel(checkpoint, lm_config(checkpoint), request.param)


def test_sampled_codes_are_the_same_alone_and_in_company(lm: LanguageModel) -> None:
    """Requests of different lengths join at different steps, and leave when they are done."""
    plans = [(seed, 6 + 5 * seed % 17, seed * 2 // 3) for seed in range(9)]  # seed, frames, joins at step
    alone = []
    for seed, frames, _ in plans:
        run = Run(lm, seed, frames)
        while not run.codes.is_done:
            step(lm, [run])
        alone.append(run.result)

    runs = [(joins, Run(lm, seed, frames)) for seed, frames, joins in plans]
    sizes = set()
    for now in range(100):
        going = [run for joins, run in runs if joins <= now and not run.codes.is_done]
        if not going and all(run.codes.is_done for _, run in runs):
            break
        sizes.add(len(going))
        step(lm, going)
    assert len(sizes) > 4, "they met in batches of many sizes"
    for (codes, logits), (_, run) in zip(alone, runs, strict=True):
        assert torch.equal(run.result[0], codes)
        assert torch.equal(run.result[1], logits), "not only the codes: every bit of the logits"


def test_prompt_and_seed_matter(lm: LanguageModel) -> None:
    results = []
    for seed in (1, 2):
        run = Run(lm, seed, 8)
        while not run.codes.is_done:
            step(lm, [run])
        results.append(run.result[0])
    assert not torch.equal(*results)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize(("outputs", "inputs"), [(1024, 4096), (3072, 1024), (96, 32)])
def test_a_row_of_a_product_does_not_depend_on_the_others(precision: Precision, outputs: int, inputs: int) -> None:
    generator = torch.Generator().manual_seed(1)
    linear = make_linear(torch.randn(outputs, inputs, generator=generator), precision)
    x = torch.randn(64, inputs, generator=generator) * torch.logspace(-3, 3, 64)[:, None]
    everything = linear(x)
    for rows in (1, 2, 3, 4, 6, 8, 12, 16, 31, 32, 48):
        assert torch.equal(linear(x[:rows].contiguous()), everything[:rows]), rows
        assert torch.equal(linear(x[-rows:].contiguous()), everything[-rows:]), rows


def test_int8_is_near_the_full_product_for_rows_of_any_magnitude() -> None:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(256, 512, generator=generator)
    x = torch.randn(3, 512, generator=generator) * torch.tensor([[1e-4], [1.0], [1e4]])
    exact = x @ weight.t()
    error = (Int8Linear(weight)(x) - exact).norm(dim=1) / exact.norm(dim=1)
    assert error.max() < 0.02


def test_frames_come_out_of_the_delay_pattern_as_they_went_in() -> None:
    codes = DelayedCodes((0, 0, 1, 3), frames=5, none=9)
    assert codes.last.tolist() == [9, 9, 9, 9]
    for n in range(codes.steps):
        codes.add(torch.tensor([n, n + 100, n + 200, n + 300]))
        assert codes.frames_ready == max(0, n - 2)
    assert codes.is_done
    assert codes.last.tolist() == [9, 9, 9, 307], "beyond the last frame there is none"
    assert codes.frames(1, 5).t().tolist() == [[n, n + 100, n + 201, n + 303] for n in range(1, 5)]


def parameters(**changes: float) -> GenerationParameters:
    return GenerationParameters("", 1, 7, **changes)  # type: ignore[arg-type]


def draws(logits: Tensor, count: int = 300, **changes: float) -> set[int]:
    sampler = Sampler(parameters(**changes))
    return {int(sampler.draw(logits)[0]) for _ in range(count)}


def test_sampling_keeps_to_top_k_and_top_p() -> None:
    logits = torch.log(torch.tensor([0.4, 0.3, 0.2, 0.1])).expand(2, 1, 4)
    assert draws(logits, temperature=0) == {0}
    assert draws(logits, top_k=1) == {0}
    assert draws(logits, top_k=2) == {0, 1}
    assert draws(logits, top_k=0) == {0, 1, 2, 3}
    assert draws(logits, top_p=0.65) == {0, 1}
    assert draws(logits, top_p=0.95, top_k=1) == {0, 1, 2, 3}, "top_p rules where it is given"


def test_guidance_goes_from_without_the_prompt_to_with_it_and_beyond() -> None:
    logits = torch.tensor([[[0.0, 1.0, 0.9]], [[2.0, 1.5, 0.5]]])  # with, without
    expected = {0.0: 0, 1.0: 1, 10.0: 2}
    assert {scale: draws(logits, 1, temperature=0, guidance_scale=scale) for scale in expected} == {
        scale: {code} for scale, code in expected.items()
    }


def test_kv_memory_is_refused_before_it_is_taken_and_comes_back(lm: LanguageModel) -> None:
    memory = KvMemory(lm.config, limit_bytes=3 * 4 * 2 * 2 * 64 * 128)  # 3 layers, fp32, k and v, 2 rows, dim 64
    cache = memory.reserve(60)
    with pytest.raises(ResourceExhausted, match="KV cache") as refused:
        memory.reserve(65)  # Blocks have 32 positions: it takes 96, the first 64.
    assert refused.value.retry_after_seconds
    memory.release(memory.reserve(64))
    memory.release(cache)
    assert memory.reserved_bytes == 0
    memory.release(memory.reserve(128))


@pytest.mark.parametrize("prompted", [True, False])
@pytest.mark.parametrize("channels", ["mono", "stereo"])
def test_reading_codes_in_passes_is_as_reading_them_in_steps(
    channels: str, prompted: bool, request: pytest.FixtureRequest
) -> None:
    checkpoint = read_checkpoint(request.getfixturevalue(channels) / "state_dict.bin")
    lm = LanguageModel(checkpoint, lm_config(checkpoint), "fp32")
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
        torch.testing.assert_close(steps.kept(index, 60), passes.kept(index, 60), atol=1e-5, rtol=0)
    expected, found = lm.step(codes[None, :, 60], [steps]), lm.step(codes[None, :, 60], [passes])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_rewound_cache_is_as_a_new_one(lm: LanguageModel) -> None:
    codes = torch.randint(lm.config.card, (lm.config.n_q, 20), generator=torch.Generator().manual_seed(1))
    new, used = KvCache(lm.config, 20), KvCache(lm.config, 20)
    for cache in (new, used):
        lm.condition(cache, torch.randn(5, lm.config.dim, generator=torch.Generator().manual_seed(2)))
    lm.prefill(codes.flip(1), used)
    used.rewind()
    for cache in (new, used):
        lm.prefill(codes[:, :19], cache)
    assert torch.equal(lm.step(codes[None, :, 19], [new]), lm.step(codes[None, :, 19], [used]))
