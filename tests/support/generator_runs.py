"""Runs requests on a code generator of MusicGen, without text encoder and codec; and a device that is always late."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generation_service.models.base import GenerationParameters
from generation_service.models.musicgen.adapters.adapter_weights import LoadAdapters, load_none
from generation_service.models.musicgen.checkpoints.checkpoint import LM_FILE
from generation_service.models.musicgen.checkpoints.checkpoint_reader import read_checkpoint
from generation_service.models.musicgen.checkpoints.config import LmConfig, parse_lm_config
from generation_service.models.musicgen.code_generator import CodeGenerator, CodeRow, Reservation
from generation_service.models.musicgen.conditions import Branch, Condition, WindowConditions
from generation_service.models.musicgen.delay_pattern import Codes
from generation_service.models.musicgen.eager_code_generator import EagerCodeGenerator
from generation_service.models.musicgen.lm.decoder_layers import read_decoder
from generation_service.models.musicgen.lm.kv_cache import KvCachePool
from generation_service.models.musicgen.lm.language_model import LanguageModel
from generation_service.models.musicgen.lm.linear import Precision, build_linear
from generation_service.models.musicgen.resident.decode_operations import DecodeOperations
from generation_service.models.musicgen.resident.page_pool import PagePool
from generation_service.models.musicgen.resident.resident_code_generator import ResidentCodeGenerator
from generation_service.models.musicgen.sliding_window import WindowedCodes


@dataclass(frozen=True, slots=True)
class PlannedConditions:
    """What one window is conditioned on: random vectors instead of T5's output."""

    branches: tuple[tuple[int, float, float], ...]
    """The tokens of each branch's text, and its first and its last weight."""
    negative_tokens: int = 0
    prefix_positions: int = 0

    def build(self, dim: int) -> WindowConditions:
        """The texts of the same length are the same tensor."""
        prefixes = iter(_random_vectors(1000 + seed, self.prefix_positions, dim) for seed in range(10))
        branches = [
            Branch(Condition(_random_vectors(tokens, tokens, dim), next(prefixes)), first, last)
            for tokens, first, last in self.branches
        ]
        negative = Condition(_random_vectors(self.negative_tokens, self.negative_tokens, dim), next(prefixes))
        return WindowConditions(tuple(branches), negative)


@functools.cache
def _random_vectors(seed: int, count: int, dim: int) -> Tensor | None:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)) if count else None


@dataclass(frozen=True, slots=True)
class Plan:
    """A request, and when it does what. Its prompt is random vectors instead of T5's output."""

    tokens: int
    frames: int
    joins_at: int = 0
    cancelled_at: int | None = None
    paused_every: int = 0
    """It takes no part in every n-th step; 0: in each."""
    prompt_frames: int = 0
    """Frames of codes to continue, which come in addition to `frames`."""
    sampling: dict[str, Any] = field(default_factory=dict)
    windows: tuple[PlannedConditions, ...] = ()
    """The conditions of each window, the last ones also of all later ones; without them, a text of `tokens`."""

    def parameters(self) -> GenerationParameters:
        return GenerationParameters("", 1, seed=7 * self.tokens + self.frames, **self.sampling)

    def text(self, dim: int) -> Tensor | None:
        return _random_vectors(self.tokens, self.tokens, dim)

    def prompt(self, config: LmConfig) -> Codes | None:
        random = np.random.default_rng(self.prompt_frames)
        return random.integers(0, config.card, (config.n_q, self.prompt_frames)) if self.prompt_frames else None

    def conditions(self, window: int) -> PlannedConditions:
        windows = self.windows or (PlannedConditions(((self.tokens, 1.0, 1.0),)),)
        return windows[min(window, len(windows) - 1)]

    def reservation(self, positions: int) -> Reservation:
        """positions: those of the codes of the longest window."""
        windows = range(max(1, len(self.windows)))
        return Reservation.for_windows(positions, [self.conditions(window).build(1) for window in windows])


def run_plans(
    generator: CodeGenerator[Any], plans: Sequence[Plan], window: int, load_adapters: LoadAdapters = load_none
) -> list[Codes]:
    """Runs all plans in one batch, with windows of `window` frames. Returns the codes of each, [K, frames]; those of a
    cancelled one are as many as it got."""
    config = generator.config
    rows: dict[int, CodeRow] = {}
    codes: dict[int, WindowedCodes] = {}
    windows = [0] * len(plans)
    for now in range(10_000):
        for index, plan in enumerate(plans):
            if plan.cancelled_at == now:
                generator.close(rows.pop(index))
        for index, plan in enumerate(plans):
            if plan.joins_at == now:
                frames = plan.prompt_frames + plan.frames
                codes[index] = WindowedCodes(config.delays, frames, config.card, window, plan.prompt(config))
                reservation = plan.reservation(min(frames, window) + config.max_delay)
                parameters = plan.parameters()
                rows[index] = generator.open(parameters, reservation, load_adapters(parameters.adapters))
                generator.begin_window(rows[index], codes[index].window, plan.conditions(0).build(config.dim))
        active = [
            row
            for index, row in rows.items()
            if not (plans[index].paused_every and now % plans[index].paused_every == 0)
        ]
        behind = next((row for row in active if row.needs_prefill), None)
        if behind is not None:
            generator.prefill(behind)
        steps = [row for row in active if row.can_step]
        if steps:
            generator.launch(steps)
        for index in _append_results(generator, rows, codes, wait=not steps):
            windows[index] += 1
            conditions = plans[index].conditions(windows[index]).build(config.dim)
            generator.begin_window(rows[index], codes[index].window, conditions)
        for index in [index for index in rows if codes[index].is_done]:
            generator.close(rows.pop(index))
        if not rows and now >= max(plan.joins_at for plan in plans):
            break
    assert generator.memory.reserved_bytes == 0
    return [codes[index].select_frames(0, codes[index].frames_ready) for index in range(len(plans))]


def _append_results(
    generator: CodeGenerator[Any], rows: dict[int, CodeRow], codes: dict[int, WindowedCodes], *, wait: bool
) -> list[int]:
    """Returns the requests that a new window begins for."""
    index_of = {row: index for index, row in rows.items()}
    ended = []
    for result in generator.collect(wait=wait):
        assert result.is_finite.all()
        for row, sampled in zip(result.rows, result.codes, strict=True):
            if row.is_open and codes[index_of[row]].append(sampled):
                ended.append(index_of[row])
    return ended


def eager_generator(folder: Path, precision: Precision = "fp32") -> EagerCodeGenerator:
    checkpoint = read_checkpoint(folder / LM_FILE)
    config = parse_lm_config(checkpoint)
    pool = KvCachePool(config, 1 << 30, is_quantized=precision == "int8")
    return EagerCodeGenerator(LanguageModel(checkpoint, config, precision), pool)


def resident_generator(
    folder: Path,
    *,
    window: int,
    slots: int,
    pages: int = 200,
    dtype: torch.dtype = torch.float32,
    operations: DecodeOperations | None = None,
    device_name: str = "cpu",
    **options: Any,
) -> ResidentCodeGenerator:
    """For windows of `window` frames."""
    checkpoint = read_checkpoint(folder / LM_FILE)
    config = parse_lm_config(checkpoint)
    device = torch.device(device_name)
    operations = operations or DecodeOperations(lambda weight: build_linear(weight, "fp32"))
    return ResidentCodeGenerator(
        config,
        read_decoder(checkpoint, config, device, operations.build_linear),
        operations,
        PagePool(config, pages, dtype, device),
        slots=slots,
        positions=window + config.max_delay,
        **options,
    )


class LateEvent:
    """The event of a device that never has results before somebody waits for them."""

    def __init__(self, source: Tensor, target: Tensor) -> None:
        self._results = source.clone()  # What the results are in the order of the device's work.
        self._target = target
        target.fill_(-1)

    def record(self) -> None: ...

    def query(self) -> bool:
        return False

    def synchronize(self) -> None:
        self._target.copy_(self._results)
