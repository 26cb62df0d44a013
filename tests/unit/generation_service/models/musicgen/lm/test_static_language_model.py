"""The accelerator's language model, run on the CPU: everything but the capture of graphs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

from torch import Tensor  # noqa: E402

from generation_service.models.base import GenerationParameters  # noqa: E402
from generation_service.models.musicgen.checkpoints.checkpoint import Checkpoint, read_checkpoint  # noqa: E402
from generation_service.models.musicgen.checkpoints.config import LmConfig, parse_lm_config  # noqa: E402
from generation_service.models.musicgen.delay_pattern import DelayedCodes  # noqa: E402
from generation_service.models.musicgen.device_sampling import sample_batch_on_device  # noqa: E402
from generation_service.models.musicgen.lm.kv_cache import KvCache, KvCachePool  # noqa: E402
from generation_service.models.musicgen.lm.language_model import LanguageModel  # noqa: E402
from generation_service.models.musicgen.lm.static_kv_cache import StaticKvCachePool  # noqa: E402
from generation_service.models.musicgen.lm.static_language_model import StaticLanguageModel, StepShape  # noqa: E402
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


class ShapeRecorder:
    """A runner that records the shapes of the steps."""

    def __init__(self) -> None:
        self.shapes: set[StepShape] = set()

    def __call__(self, shape: StepShape, compute: Callable[[], Tensor]) -> Tensor:
        self.shapes.add(shape)
        return compute()


class Run:
    """One request to the language model. Its prompt is random vectors instead of T5's output."""

    def __init__(self, lm: LanguageModel, memory: KvCachePool, tokens: int, frames: int, **sampling: Any) -> None:
        config = lm.config
        self.codes = DelayedCodes(config.delays, frames, config.card)
        self.cache = memory.reserve(self.codes.total_steps, tokens)
        self.sampler = Sampler(GenerationParameters("", 1, seed=7 * tokens + frames, **sampling))
        generator = torch.Generator().manual_seed(tokens)
        lm.condition(self.cache, torch.randn(tokens, config.dim, generator=generator) if tokens else None)
        self.logits: list[Tensor] = []

    def accept(self, logits: Tensor, codes: Tensor) -> None:
        self.logits.append(logits.clone())
        self.codes.append(codes)

    @property
    def frames(self) -> Tensor:
        return self.codes.frames(0, self.codes.frames_ready)


def step(lm: LanguageModel, runs: list[Run]) -> None:
    logits = lm.step(torch.stack([run.codes.newest for run in runs]), [run.cache for run in runs])
    sampled = sample_batch_on_device(logits, [run.sampler for run in runs])
    for run, own, codes in zip(runs, logits, sampled, strict=True):
        run.accept(own, codes)


def run_batch(lm: LanguageModel, memory: KvCachePool, **sampling: Any) -> list[Run]:
    """Runs all plans in one batch, which they join and leave at their steps."""
    runs: dict[int, Run] = {}
    for now in range(200):
        for index, (tokens, frames, joins_at) in enumerate(PLANS):
            if joins_at == now:
                runs[index] = Run(lm, memory, tokens, frames, **sampling)
        active = [run for run in runs.values() if not run.codes.is_done]
        if not active:
            break
        step(lm, active)
        for run in active:
            if run.codes.is_done:
                memory.release(run.cache)
    return [runs[index] for index in range(len(PLANS))]


@pytest.fixture(params=["mono", "stereo"])
def files(request: pytest.FixtureRequest) -> tuple[Checkpoint, LmConfig]:
    folder: Path = request.getfixturevalue(request.param)
    checkpoint = read_checkpoint(folder / "state_dict.bin")
    return checkpoint, parse_lm_config(checkpoint)


@pytest.fixture
def memory(files: tuple[Checkpoint, LmConfig]) -> StaticKvCachePool:
    return StaticKvCachePool(files[1], 8, 1503, dtype=torch.float32, device=CPU)


@pytest.fixture
def lm(files: tuple[Checkpoint, LmConfig], memory: StaticKvCachePool) -> StaticLanguageModel:
    return StaticLanguageModel(*files, "fp32", memory)


def test_greedy_codes_equal_the_plain_model(
    files: tuple[Checkpoint, LmConfig], lm: StaticLanguageModel, memory: StaticKvCachePool
) -> None:
    """The plain model's codes equal audiocraft's: see test_language_model_reference."""
    plain, plain_memory = LanguageModel(*files, "fp32"), KvCachePool(files[1], 1 << 30)
    expected = run_batch(plain, plain_memory, temperature=0)
    actual = run_batch(lm, memory, temperature=0)
    assert len({tuple(run.frames[:, 0].tolist()) for run in expected}) > 4, "the codes depend on the prompt"
    for plan, want, got in zip(PLANS, expected, actual, strict=True):
        assert torch.equal(got.frames, want.frames), plan
        torch.testing.assert_close(torch.stack(got.logits), torch.stack(want.logits), atol=1e-4, rtol=1e-4)


def test_sampled_codes_do_not_depend_on_the_batch(lm: StaticLanguageModel, memory: StaticKvCachePool) -> None:
    batch = run_batch(lm, memory, top_k=20)
    for (tokens, frames, _), other in zip(PLANS, batch, strict=True):
        alone = Run(lm, memory, tokens, frames, top_k=20)
        while not alone.codes.is_done:
            step(lm, [alone])
        memory.release(alone.cache)
        assert torch.equal(alone.frames, other.frames)
    assert memory.reserved_bytes == 0


def test_paused_request_continues_unchanged(lm: StaticLanguageModel, memory: StaticKvCachePool) -> None:
    """A slot that takes no part in a step is computed as well, and that must not change its state."""
    expected = run_batch(lm, memory, temperature=0)[:2]
    first, second = (Run(lm, memory, tokens, frames, temperature=0) for tokens, frames, _ in PLANS[:2])
    for now in range(200):
        active = [run for run, pause in ((first, 3), (second, 5)) if now % pause and not run.codes.is_done]
        if active:
            step(lm, active)
    assert torch.equal(first.frames, expected[0].frames)
    assert torch.equal(second.frames, expected[1].frames)


def test_prefill_equals_single_steps(lm: StaticLanguageModel, memory: StaticKvCachePool) -> None:
    steps, bystander = Run(lm, memory, 6, 60, temperature=0), Run(lm, memory, 3, 80, temperature=0)
    for _ in range(40):
        step(lm, [steps, bystander])
    again = Run(lm, memory, 6, 60, temperature=0)
    for first, end in ((0, 25), (25, 40)):
        lm.prefill(steps.codes._codes[:, first:end], again.cache)
        step(lm, [bystander])
    assert again.cache.position == 40
    newest = steps.codes.newest[None]
    torch.testing.assert_close(lm.step(newest, [again.cache]), lm.step(newest, [steps.cache]), atol=1e-4, rtol=1e-4)


def test_reused_slot_has_no_state_of_its_last_request(lm: StaticLanguageModel, memory: StaticKvCachePool) -> None:
    results = []
    for tokens in (0, 9, 90, 9, 0):
        run = Run(lm, memory, tokens, 8, temperature=0)
        assert run.cache is memory.slots[0]
        while not run.codes.is_done:
            step(lm, [run])
        memory.release(run.cache)
        results.append(torch.stack(run.logits))
    assert torch.equal(results[0], results[4])
    assert torch.equal(results[1], results[3])
    assert not torch.equal(results[0], results[1])


def test_step_shapes_are_bucketed(files: tuple[Checkpoint, LmConfig], memory: StaticKvCachePool) -> None:
    """The logits are checked in each shape: at the last position of a length, the first of the next, and at the end."""
    recorder = ShapeRecorder()
    lm = StaticLanguageModel(*files, "fp32", memory, recorder)
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
                cache.append(layer, keys, values)
                other.append(layer, keys, values)
            cache.position = other.position = position
        torch.testing.assert_close(lm.step(codes, caches), plain.step(codes, plain_caches), atol=1e-4, rtol=1e-4)
    assert recorder.shapes == {(2, length, 512) for length in (256, 512, 1024, 1504)}
    recorder.shapes.clear()
    for cache, slots, tokens in ((caches[0], 1, 64), (caches[1], 2, 512)):
        cache.position = 0
        lm.step(codes[:1], [cache])
        assert recorder.shapes == {(slots, 256, tokens)}
        recorder.shapes.clear()


def test_bf16_logits_are_close_to_fp32(
    files: tuple[Checkpoint, LmConfig], lm: StaticLanguageModel, memory: StaticKvCachePool
) -> None:
    narrow_memory = StaticKvCachePool(files[1], 2, 200, dtype=torch.bfloat16, device=CPU)
    narrow = StaticLanguageModel(*files, "bf16", narrow_memory)
    exact, rounded = Run(lm, memory, 12, 60, temperature=0), Run(narrow, narrow_memory, 12, 60, temperature=0)
    while not exact.codes.is_done:
        codes = exact.codes.newest[None]
        logits = narrow.step(codes, [rounded.cache])
        step(lm, [exact])
        assert logits.dtype == torch.float32
        error = (logits[0] - exact.logits[-1]).norm() / exact.logits[-1].norm()
        assert 0 < error < 0.03
