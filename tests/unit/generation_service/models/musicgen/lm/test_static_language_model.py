"""The accelerator's language model on the CPU: all of it but the capture of graphs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

from torch import Tensor  # noqa: E402

from dgx_music.errors import InvalidArgument, ResourceExhausted  # noqa: E402
from generation_service.models.base import GenerationParameters  # noqa: E402
from generation_service.models.musicgen.checkpoints.audiocraft_file import Checkpoint, read_checkpoint  # noqa: E402
from generation_service.models.musicgen.checkpoints.config import LmConfig, lm_config  # noqa: E402
from generation_service.models.musicgen.delay_pattern import DelayedCodes  # noqa: E402
from generation_service.models.musicgen.device_sampling import draw_together  # noqa: E402
from generation_service.models.musicgen.lm.kv_cache import KvCache, KvMemory  # noqa: E402
from generation_service.models.musicgen.lm.language_model import LanguageModel  # noqa: E402
from generation_service.models.musicgen.lm.static_kv_cache import TOKEN_CAPACITY, StaticKv  # noqa: E402
from generation_service.models.musicgen.lm.static_language_model import Shape, StaticLanguageModel  # noqa: E402
from generation_service.models.musicgen.sampling import Sampler  # noqa: E402

CPU = torch.device("cpu")
PLANS = [
    # prompt tokens, frames, joins at step
    (4, 40, 0),
    (90, 70, 0),
    (1, 12, 5),
    (0, 20, 6),
    (11, 33, 6),
    (5, 50, 13),
    (2, 1, 20),
    (17, 25, 30),
]


class ShapesSeen:
    """A runner that remembers what it was asked for."""

    def __init__(self) -> None:
        self.shapes: set[Shape] = set()

    def __call__(self, shape: Shape, compute: Callable[[], Tensor]) -> Tensor:
        self.shapes.add(shape)
        return compute()


class Run:
    """One request; its prompt is random vectors instead of T5's."""

    def __init__(self, lm: LanguageModel, memory: KvMemory, tokens: int, frames: int, **sampling: Any) -> None:
        config = lm.config
        self.codes = DelayedCodes(config.delays, frames, config.card)
        self.cache = memory.reserve(self.codes.steps, tokens)
        self.sampler = Sampler(GenerationParameters("", 1, seed=7 * tokens + frames, **sampling))
        generator = torch.Generator().manual_seed(tokens)
        lm.condition(self.cache, torch.randn(tokens, config.dim, generator=generator) if tokens else None)
        self.logits: list[Tensor] = []

    def take(self, logits: Tensor, drawn: Tensor) -> None:
        self.logits.append(logits.clone())
        self.codes.add(drawn)

    @property
    def frames(self) -> Tensor:
        return self.codes.frames(0, self.codes.frames_ready)


def step(lm: LanguageModel, runs: list[Run]) -> None:
    logits = lm.step(torch.stack([run.codes.last for run in runs]), [run.cache for run in runs])
    drawn = draw_together(logits, [run.sampler for run in runs])
    for run, own, codes in zip(runs, logits, drawn, strict=True):
        run.take(own, codes)


def run_in_company(lm: LanguageModel, memory: KvMemory, **sampling: Any) -> list[Run]:
    """All plans, joining and leaving when they should."""
    runs: dict[int, Run] = {}
    for now in range(200):
        for index, (tokens, frames, joins) in enumerate(PLANS):
            if joins == now:
                runs[index] = Run(lm, memory, tokens, frames, **sampling)
        going = [run for run in runs.values() if not run.codes.is_done]
        if not going:
            break
        step(lm, going)
        for run in going:
            if run.codes.is_done:
                memory.release(run.cache)
    return [runs[index] for index in range(len(PLANS))]


@pytest.fixture(params=["mono", "stereo"])
def files(request: pytest.FixtureRequest) -> tuple[Checkpoint, LmConfig]:
    folder: Path = request.getfixturevalue(request.param)
    checkpoint = read_checkpoint(folder / "state_dict.bin")
    return checkpoint, lm_config(checkpoint)


@pytest.fixture
def memory(files: tuple[Checkpoint, LmConfig]) -> StaticKv:
    return StaticKv(files[1], 8, 1503, dtype=torch.float32, device=CPU)


@pytest.fixture
def lm(files: tuple[Checkpoint, LmConfig], memory: StaticKv) -> StaticLanguageModel:
    return StaticLanguageModel(*files, "fp32", memory)


def test_greedy_codes_are_those_of_the_plain_model(
    files: tuple[Checkpoint, LmConfig], lm: StaticLanguageModel, memory: StaticKv
) -> None:
    """Which are audiocraft's: see test_lm_reference."""
    plain, plain_memory = LanguageModel(*files, "fp32"), KvMemory(files[1], 1 << 30)
    expected = run_in_company(plain, plain_memory, temperature=0)
    found = run_in_company(lm, memory, temperature=0)
    assert len({tuple(run.frames[:, 0].tolist()) for run in expected}) > 4, "prompts matter"
    for plan, want, got in zip(PLANS, expected, found, strict=True):
        assert torch.equal(got.frames, want.frames), plan
        torch.testing.assert_close(torch.stack(got.logits), torch.stack(want.logits), atol=1e-4, rtol=1e-4)


def test_sampled_codes_are_the_same_alone_and_in_company(lm: StaticLanguageModel, memory: StaticKv) -> None:
    company = run_in_company(lm, memory, top_k=20)
    for (tokens, frames, _), other in zip(PLANS, company, strict=True):
        alone = Run(lm, memory, tokens, frames, top_k=20)
        while not alone.codes.is_done:
            step(lm, [alone])
        memory.release(alone.cache)
        assert torch.equal(alone.frames, other.frames)
    assert memory.reserved_bytes == 0


def test_a_paused_request_goes_on_as_if_nothing_had_been(lm: StaticLanguageModel, memory: StaticKv) -> None:
    """A slot that takes no part in a step is computed too, and must not be harmed by that."""
    expected = run_in_company(lm, memory, temperature=0)[:2]
    first, second = (Run(lm, memory, tokens, frames, temperature=0) for tokens, frames, _ in PLANS[:2])
    for now in range(200):
        going = [run for run, pause in ((first, 3), (second, 5)) if now % pause and not run.codes.is_done]
        if going:
            step(lm, going)
    assert torch.equal(first.frames, expected[0].frames)
    assert torch.equal(second.frames, expected[1].frames)


def test_known_codes_are_read_in_one_pass(lm: StaticLanguageModel, memory: StaticKv) -> None:
    steps, bystander = Run(lm, memory, 6, 60, temperature=0), Run(lm, memory, 3, 80, temperature=0)
    for _ in range(40):
        step(lm, [steps, bystander])
    again = Run(lm, memory, 6, 60, temperature=0)
    for first, end in ((0, 25), (25, 40)):
        lm.prefill(steps.codes._codes[:, first:end], again.cache)
        step(lm, [bystander])
    assert again.cache.position == 40
    newest = steps.codes.last[None]
    torch.testing.assert_close(lm.step(newest, [again.cache]), lm.step(newest, [steps.cache]), atol=1e-4, rtol=1e-4)


def test_a_slot_carries_nothing_over(lm: StaticLanguageModel, memory: StaticKv) -> None:
    results = []
    for tokens in (0, 9, 90, 9, 0):
        run = Run(lm, memory, tokens, 8, temperature=0)
        assert run.cache is memory.holders[0]
        while not run.codes.is_done:
            step(lm, [run])
        memory.release(run.cache)
        results.append(torch.stack(run.logits))
    assert torch.equal(results[0], results[4])
    assert torch.equal(results[1], results[3])
    assert not torch.equal(results[0], results[1])


def test_a_step_has_one_of_few_shapes(files: tuple[Checkpoint, LmConfig], memory: StaticKv) -> None:
    """And the same logits in each: at the last position of a length, at the first of the next, and at the end."""
    seen = ShapesSeen()
    lm = StaticLanguageModel(*files, "fp32", memory, seen)
    plain = LanguageModel(*files, "fp32")
    caches: list[KvCache] = [memory.reserve(1503, tokens) for tokens in (5, 70)]
    plain_caches = [KvCache(files[1], 1503) for _ in caches]
    generator = torch.Generator().manual_seed(3)
    for index, (cache, other) in enumerate(zip(caches, plain_caches, strict=True)):
        text = torch.randn((5, 70)[index], files[1].dim, generator=generator)
        lm.condition(cache, text)
        plain.condition(other, text)
    codes = torch.randint(0, 64, (2, files[1].n_q), generator=generator)
    for position in (0, 255, 256, 511, 512, 1023, 1024, 1502):
        for cache, other in zip(caches, plain_caches, strict=True):
            cache.position = other.position = 0
            for layer in range(files[1].num_layers if position else 0):
                keys, values = torch.randn(2, 2, files[1].num_heads, position, files[1].head_dim, generator=generator)
                cache.put(layer, keys, values)
                other.put(layer, keys, values)
            cache.position = other.position = position
        torch.testing.assert_close(lm.step(codes, caches), plain.step(codes, plain_caches), atol=1e-4, rtol=1e-4)
    assert seen.shapes == {(2, length, 512) for length in (256, 512, 1024, 1504)}
    seen.shapes.clear()
    for cache, slots, tokens in ((caches[0], 1, 64), (caches[1], 2, 512)):
        cache.position = 0
        lm.step(codes[:1], [cache])
        assert seen.shapes == {(slots, 256, tokens)}
        seen.shapes.clear()


def test_bf16_is_near_fp32(files: tuple[Checkpoint, LmConfig], lm: StaticLanguageModel, memory: StaticKv) -> None:
    narrow_memory = StaticKv(files[1], 2, 200, dtype=torch.bfloat16, device=CPU)
    narrow = StaticLanguageModel(*files, "bf16", narrow_memory)
    exact, rounded = Run(lm, memory, 12, 60, temperature=0), Run(narrow, narrow_memory, 12, 60, temperature=0)
    while not exact.codes.is_done:
        codes = exact.codes.last[None]
        logits = narrow.step(codes, [rounded.cache])
        step(lm, [exact])
        assert logits.dtype == torch.float32
        error = (logits[0] - exact.logits[-1]).norm() / exact.logits[-1].norm()
        assert 0 < error < 0.03


def test_slots_are_bounded_and_come_back(memory: StaticKv) -> None:
    caches = [memory.reserve(100) for _ in range(8)]
    assert [cache.slot for cache in caches] == list(range(8))
    assert memory.reserved_bytes == memory.limit_bytes
    with pytest.raises(ResourceExhausted, match="all 8 KV caches are taken") as refused:
        memory.reserve(100)
    assert refused.value.retry_after_seconds
    memory.release(caches[5])
    memory.release(caches[2])
    assert memory.reserve(100).slot == 2, "the lowest free one"


def test_what_never_fits_is_named(memory: StaticKv) -> None:
    with pytest.raises(InvalidArgument, match="prompt: has 513 tokens"):
        memory.reserve(100, TOKEN_CAPACITY + 1)
    with pytest.raises(InvalidArgument, match="duration_seconds"):
        memory.reserve(memory.capacity + 1)
    assert memory.reserved_bytes == 0
