"""Generates codes on the CPU: a step is computed when it is launched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from generation_service.models.base import GenerationParameters
from generation_service.models.musicgen.adapters.adapter_weights import AppliedAdapter
from generation_service.models.musicgen.checkpoints.config import LmConfig
from generation_service.models.musicgen.code_generator import CodeRow, Reservation, StepResult
from generation_service.models.musicgen.conditions import WindowConditions
from generation_service.models.musicgen.delay_pattern import DelayedCodes
from generation_service.models.musicgen.lm.kv_cache import KvCache, KvCachePool
from generation_service.models.musicgen.lm.language_model import LanguageModel
from generation_service.models.musicgen.sampling import SamplingTensors, sample_checked


@dataclass(eq=False, slots=True, kw_only=True)
class EagerRow(CodeRow):
    """A row and its KV cache."""

    cache: KvCache
    prefixes: Tensor | None = None
    """[rows, P, dim], those of the branches and of the negative condition."""


class EagerCodeGenerator:
    """Implements `code_generator.CodeGenerator` with a `LanguageModel`, whose weights and caches are on the CPU."""

    open_seconds = 0.0

    def __init__(self, lm: LanguageModel, memory: KvCachePool) -> None:
        self._lm = lm
        self.memory = memory
        self._results: list[StepResult[EagerRow]] = []

    @property
    def config(self) -> LmConfig:
        return self._lm.config

    def open(
        self, parameters: GenerationParameters, reservation: Reservation, adapters: tuple[AppliedAdapter, ...] = ()
    ) -> EagerRow:
        cache = self.memory.reserve(reservation)
        cache.adapters = adapters
        return EagerRow(parameters, adapters=adapters, cache=cache)

    def begin_window(self, row: EagerRow, window: DelayedCodes, conditions: WindowConditions) -> None:
        row.window, row.conditions = window, conditions
        row.prefix_position = row.position = 0
        row.prefixes = conditions.stack_prefixes()
        self._lm.begin_window(row.cache, conditions)

    def prefill(self, row: EagerRow) -> None:
        size = self._lm.max_prefill_positions
        if row.prefixes is not None and (piece := row.prefixes[:, row.prefix_position :][:, :size]).shape[1]:
            self._lm.prefill_prefix(piece, row.cache)
            row.prefix_position += piece.shape[1]
            return
        end = min(row.position + size, row.window.known_steps)
        self._lm.prefill(torch.from_numpy(row.window.columns[:, row.position : end]), row.cache)
        row.position = end

    def launch(self, rows: Sequence[EagerRow]) -> None:
        newest = torch.from_numpy(np.stack([row.window.newest for row in rows]))
        logits = self._lm.step(newest, [row.cache for row in rows], [row.weights for row in rows])  # [B, 2, K, card]
        parameters = SamplingTensors.from_parameters([row.parameters for row in rows], self.config.card)
        codes, is_finite = sample_checked(
            logits.float(),
            parameters,
            torch.tensor([row.sample_count for row in rows]),
            max_top_k=int(parameters.top_k.max()),
            uses_top_p=any(row.parameters.top_p for row in rows),
        )
        for row in rows:
            row.position += 1
            row.sample_count += 1
        self._results.append(StepResult(tuple(rows), codes.numpy(), is_finite.all(1).numpy()))

    def collect(self, *, wait: bool) -> list[StepResult[EagerRow]]:
        results, self._results = self._results, []
        return results

    def close(self, row: EagerRow) -> None:
        row.is_open = False
        self.memory.release(row.cache)
