# ruff: noqa: E402
"""The language model: codes and logits of a request do not depend, to the last bit, on the others in the batch."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

from torch import Tensor

from generation_service.models.base import GenerationParameters
from generation_service.models.musicgen.checkpoints.checkpoint_reader import read_checkpoint
from generation_service.models.musicgen.checkpoints.config import parse_lm_config
from generation_service.models.musicgen.code_generator import Reservation
from generation_service.models.musicgen.conditions import WindowConditions
from generation_service.models.musicgen.lm.adapted_linear import ActiveAdapters
from generation_service.models.musicgen.lm.kv_cache import BLOCK_POSITIONS, KvCachePool
from generation_service.models.musicgen.lm.language_model import LanguageModel
from generation_service.models.musicgen.lm.linear import Precision
from generation_service.models.musicgen.sampling import SamplingTensors, sample

MAX_POSITIONS = 3 * BLOCK_POSITIONS


def load(folder: Path, precision: Precision) -> tuple[LanguageModel, KvCachePool]:
    checkpoint = read_checkpoint(folder / "state_dict.bin")
    config = parse_lm_config(checkpoint)
    return LanguageModel(checkpoint, config, precision), KvCachePool(config, 1 << 30, is_quantized=precision == "int8")


def random_codes(lm: LanguageModel, count: int, seed: int) -> Tensor:
    """int64 [K, count]."""
    return torch.randint(lm.config.card, (lm.config.n_q, count), generator=torch.Generator().manual_seed(seed))


def random_text(lm: LanguageModel, tokens: int, seed: int) -> Tensor | None:
    """Random vectors instead of T5's output, or None for 0 tokens."""
    return torch.randn(tokens, lm.config.dim, generator=torch.Generator().manual_seed(seed)) if tokens else None


class Run:
    """One request to the language model. Some have no prompt, one has a prompt of two blocks."""

    def __init__(self, lm: LanguageModel, memory: KvCachePool, seed: int, start: int) -> None:
        self.tokens = (7 * seed) % 23
        self.cache = memory.reserve(Reservation(MAX_POSITIONS, self.tokens))
        lm.begin_window(self.cache, WindowConditions.from_text(random_text(lm, self.tokens, seed)))
        if start:
            lm.prefill(random_codes(lm, start, seed), self.cache)
        self.parameters = GenerationParameters("", 1, seed, top_k=20)
        self.newest = random_codes(lm, 1, seed + 100)[:, 0]
        self.codes: list[Tensor] = []
        self.logits: list[Tensor] = []


def step(lm: LanguageModel, runs: list[Run]) -> None:
    logits = lm.step(torch.stack([run.newest for run in runs]), [run.cache for run in runs])
    parameters = SamplingTensors.from_parameters([run.parameters for run in runs], lm.config.card)
    counts = torch.tensor([len(run.codes) for run in runs])
    codes = sample(logits, parameters, counts, max_top_k=20, uses_top_p=False)
    for run, own_logits, own_codes in zip(runs, logits, codes, strict=True):
        run.newest = own_codes
        run.codes.append(own_codes)
        run.logits.append(own_logits.clone())


@pytest.fixture(params=["fp32", "int8"])
def loaded(request: pytest.FixtureRequest, mono: Path) -> tuple[LanguageModel, KvCachePool]:
    return load(mono, request.param)


def test_sampled_codes_do_not_depend_on_the_batch(loaded: tuple[LanguageModel, KvCachePool]) -> None:
    """Requests at positions in different blocks join at different steps and leave when they are done."""
    lm, memory = loaded
    # seed, known codes, steps, joins at step
    plans = [
        (seed, known, 6 + 5 * seed % 17, seed * 2 // 3)
        for seed, known in enumerate([0, 60, 5, 62, 120, 0, 63, 64, 150])
    ]
    alone = []
    for seed, known, steps, _ in plans:
        run = Run(lm, memory, seed, known)
        for _ in range(steps):
            step(lm, [run])
        memory.release(run.cache)
        alone.append(run)
    assert {run.tokens for run in alone} > {0, 7, 21}, "no prompt, one block, two blocks"

    runs: dict[int, Run] = {}
    sizes = set()
    for now in range(30):
        active = []
        for index, (seed, known, steps, joins_at) in enumerate(plans):
            if now == joins_at:
                runs[index] = Run(lm, memory, seed, known)
            if joins_at <= now < joins_at + steps:
                active.append(runs[index])
            elif now == joins_at + steps:
                memory.release(runs[index].cache)
        if not active:
            break
        sizes.add(len(active))
        step(lm, active)
    assert len(sizes) > 4, "the batch size changed"
    for index, own in enumerate(alone):
        assert torch.equal(torch.stack(runs[index].codes), torch.stack(own.codes))
        assert torch.equal(torch.stack(runs[index].logits), torch.stack(own.logits)), "equal to the last bit"


def test_requests_without_adapters_do_not_pass_through_the_layers_that_add_them(
    loaded: tuple[LanguageModel, KvCachePool], monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, memory = loaded
    for name in ("select", "groups", "embed"):
        monkeypatch.setattr(ActiveAdapters, name, None)
    runs = [Run(lm, memory, seed, start=5) for seed in range(2)]
    step(lm, runs)
    assert [len(run.codes) for run in runs] == [1, 1]


def test_codes_depend_on_prompt_and_seed(loaded: tuple[LanguageModel, KvCachePool]) -> None:
    runs = [Run(*loaded, seed, 0) for seed in (1, 2)]
    for _ in range(8):
        step(loaded[0], runs)
    assert not torch.equal(*(torch.stack(run.codes) for run in runs))


@pytest.mark.parametrize("tokens", [0, 5, 17])
@pytest.mark.parametrize("channels", ["mono", "stereo"])
def test_prefill_equals_single_steps(channels: str, tokens: int, request: pytest.FixtureRequest) -> None:
    lm, memory = load(request.getfixturevalue(channels), "fp32")
    codes, text = random_codes(lm, 71, seed=1), random_text(lm, tokens, seed=2)
    steps, passes = memory.reserve(Reservation(71, tokens)), memory.reserve(Reservation(71, tokens))
    for cache in (steps, passes):
        lm.begin_window(cache, WindowConditions.from_text(text))
    for n in range(70):
        lm.step(codes[None, :, n], [steps])
    for first, end in ((0, 1), (1, 33), (33, 70)):
        lm.prefill(codes[:, first:end], passes)
    assert passes.position == steps.position == 70
    for index in range(lm.config.num_layers):
        for ours, theirs in zip(passes.view(index, 70), steps.view(index, 70), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    expected, actual = lm.step(codes[None, :, 70], [steps]), lm.step(codes[None, :, 70], [passes])
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


def test_cache_in_its_second_window_equals_a_new_one(loaded: tuple[LanguageModel, KvCachePool]) -> None:
    lm, memory = loaded
    codes = random_codes(lm, 20, seed=1)
    new, used = memory.reserve(Reservation(20, 5)), memory.reserve(Reservation(20, 5))
    conditions = WindowConditions.from_text(random_text(lm, 5, seed=2))
    lm.begin_window(used, conditions)
    lm.prefill(codes.flip(1), used)
    for cache in (new, used):
        lm.begin_window(cache, conditions)
        lm.prefill(codes[:, :19], cache)
    assert torch.equal(lm.step(codes[None, :, 19], [new]), lm.step(codes[None, :, 19], [used]))


def test_reused_blocks_hold_nothing_of_the_request_before(loaded: tuple[LanguageModel, KvCachePool]) -> None:
    lm, memory = loaded
    codes = random_codes(lm, 1, seed=1)
    keeper, first = memory.reserve(Reservation(1)), memory.reserve(Reservation(64, 16))
    lm.begin_window(first, WindowConditions.from_text(torch.full((16, lm.config.dim), torch.nan)))
    for _ in range(3):
        lm.step(codes.t(), [first])  # Writes NaN.
    memory.release(first)
    second = memory.reserve(Reservation(64, 9))
    assert [row.blocks for row in second.rows] == [row.blocks for row in first.rows], "the memory is the same"
    lm.begin_window(second, WindowConditions.from_text(random_text(lm, 9, seed=1)))
    assert lm.step(codes.t(), [second]).isfinite().all()
    assert torch.equal(lm.step(codes.t(), [keeper]), lm.step(codes.t(), [memory.reserve(Reservation(1))]))


def test_quantised_keys_and_values_change_logits_little(mono: Path) -> None:
    """Only the keys and values differ: both models have fp32 weights. The limit is four times what was measured."""
    lm, exact = load(mono, "fp32")
    quantised = KvCachePool(lm.config, 1 << 30, is_quantized=True)
    codes, text = random_codes(lm, 151, seed=3), random_text(lm, 12, seed=4)
    logits = []
    for memory in (exact, quantised):
        cache = memory.reserve(Reservation(151, 12))
        lm.begin_window(cache, WindowConditions.from_text(text))
        lm.prefill(codes[:, :100], cache)
        logits.append(torch.cat([lm.step(codes[None, :, n], [cache]) for n in range(100, 151)]))
    error = (logits[1] - logits[0]).norm() / logits[0].norm()
    assert 1e-5 < error < 0.003
