"""The state of all requests in tensors at fixed addresses, for captured decode steps to read and write.

Every request has a slot. The host writes to the slot between two steps, in the order of the device's stream, so that it
needs to wait for no step. A slot that is not in use needs no clean-up: a step computes only the slots that it lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from generation_service.models.base import GenerationParameters
from generation_service.models.musicgen.checkpoints.config import LmConfig
from generation_service.models.musicgen.conditions import MAX_BRANCHES, Branch
from generation_service.models.musicgen.delay_pattern import DelayedCodes
from generation_service.models.musicgen.kernels.paged_attention import PAGE_POSITIONS
from generation_service.models.musicgen.kernels.step_ends import (
    FRAMES,
    POSITION,
    PROMPT_FRAMES,
    SAMPLE_COUNT,
    SEED,
    TOP_K,
)
from generation_service.models.musicgen.resident.page_pool import PageNumbers
from generation_service.models.musicgen.sampling import CFG_ROWS, SamplingTensors

MAX_PROMPT_TOKENS = 512
"""The longest prompt, which is also the longest that T5 was trained on."""


class DecodeState:
    """S slots, and one more, the padding slot, for the rows that fill up a step to its batch size.

    Implements `step_ends.StepState`.
    """

    def __init__(
        self, config: LmConfig, slots: int, positions: int, device: torch.device, prefill_positions: int = 0
    ) -> None:
        """`positions` is the number of positions of the longest window and its prefix, `prefill_positions` that of a
        piece of a prefill."""
        self.device = device
        self._card = config.card
        self.padding_slot = slots
        self.max_positions = -(-positions // PAGE_POSITIONS) * PAGE_POSITIONS
        """The positions of a row's pages."""

        def zeros(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.zeros(slots + 1, *shape, dtype=dtype, device=device)

        self.codes = zeros(config.n_q, positions + 1)
        """int64 [S + 1, K, positions + 1]: `DelayedCodes.columns` of each window, after the positions of its prefix."""
        self.integers = torch.zeros(6, slots + 1, dtype=torch.int64, device=device)
        """int64 [6, S + 1]. POSITION is the next position to read, at which the newest codes are. It counts the prefix,
        and so do PROMPT_FRAMES and FRAMES: for a step, the prefix is just a part of the codes that it never reads."""
        self.integers[TOP_K] = self.integers[FRAMES] = 1  # The padding slot is sampled, too, with weights of its frame.
        self.floats = torch.zeros(3, slots + 1, device=device)
        """fp32 [3, S + 1]."""
        self.tables = zeros(CFG_ROWS, self.max_positions // PAGE_POSITIONS, dtype=torch.int32)
        """int32 [S + 1, 2, P]: the page tables of the two rows of each slot."""
        self.prompt_tables = zeros(CFG_ROWS, MAX_PROMPT_TOKENS // PAGE_POSITIONS, dtype=torch.int32)
        """int32 [S + 1, 2, Pc]: the same for their texts."""
        self.prompt_tokens = zeros(CFG_ROWS)
        """int64 [S + 1, 2]: the lengths of the texts; 0 for a row without one, whose cross-attention is 0."""
        self.weights = torch.zeros(slots + 1, 2, MAX_BRANCHES, device=device)
        """fp32 [S + 1, 2, MAX_BRANCHES]: the first and the last weights of each leading slot's branches; those of the
        padding slot are for all slots whose request has a single branch."""
        self.weights[slots, :, 0] = 1
        self.sources = torch.full((slots, 1 + MAX_BRANCHES), slots, device=device)
        """int64 [S, 1 + MAX_BRANCHES]: `branches.StepLayout.sources`."""
        self.rows = torch.full((slots,), slots, device=device)
        """int64 [S]: the slots of a step, from the first on. Those of rows without a request are the padding slot."""
        self.results = zeros(config.n_q + 1)[:slots]
        """int64 [S, K + 1]: for each row of the last step the sampled codes, and whether all logits were finite."""
        self.prefill = torch.zeros(3, dtype=torch.int64, device=device)
        """int64 [3]: the slot and the first position that a prefill reads, and the positions of the prefix."""
        self.prefix = torch.zeros(prefill_positions, CFG_ROWS, config.dim, device=device)
        """fp32 [n, 2, dim]: what a prefill reads instead of codes at the positions of the prefix."""
        self.prompt = torch.zeros(MAX_PROMPT_TOKENS, config.dim, device=device)
        """fp32 [MAX_PROMPT_TOKENS, dim]: the encoded prompt whose keys and values are computed."""
        self.prompt_row = torch.zeros(1, dtype=torch.int64, device=device)
        """int64 [1]: the row that it belongs to, of all 2 (S + 1)."""

    def write_request(self, slot: int, rows: PageNumbers, texts: PageNumbers) -> None:
        """Writes where the keys and values of a slot are: the pages of each of its rows, [1 or 2, n]."""
        for by_slot, pages in ((self.tables, rows), (self.prompt_tables, texts)):
            table = np.zeros(by_slot.shape[1:], np.int32)
            table[: len(pages), : pages.shape[1]] = pages
            by_slot[slot] = self.upload(table)

    def write_texts(self, slot: int, tokens: Sequence[int]) -> None:
        """Writes the lengths of the texts of a slot's rows."""
        self.prompt_tokens[slot] = self.upload(np.array([*tokens, 0][:CFG_ROWS]))

    def write_prefix(self, prefixes: Sequence[Tensor | None]) -> None:
        """Writes a piece of the prefix of each of a slot's rows, [n, dim]; None is zeros."""
        for row, prefix in enumerate(prefixes):
            if prefix is None:
                self.prefix[:, row] = 0
            else:
                self.prefix[: len(prefix), row] = prefix.to(self.device, non_blocking=True)

    def write_window(
        self, slot: int, parameters: GenerationParameters, window: DelayedCodes, sample_count: int, prefix: int = 0
    ) -> None:
        """Writes the known codes of a window, the position of its first step, and how to sample.

        prefix: the number of positions before the codes.
        """
        sampling = SamplingTensors.from_parameters([parameters], self._card)
        integers = np.zeros(6, np.int64)
        integers[[POSITION, SAMPLE_COUNT]] = prefix + window.known_steps, sample_count
        integers[[PROMPT_FRAMES, FRAMES]] = prefix + window.prompt_frames, prefix + window.frames
        integers[[TOP_K, SEED]] = int(sampling.top_k), parameters.seed
        self.codes[slot, :, prefix : prefix + window.columns.shape[1]] = self.upload(window.columns)
        self.integers[:, slot] = self.upload(integers)
        self.floats[:, slot] = self.upload(
            torch.cat([sampling.guidance_scale, sampling.temperature, sampling.top_p]).numpy()
        )

    def write_weights(self, slot: int, branches: Sequence[Branch]) -> None:
        """Writes the weights of the branches of a request, by its leading slot."""
        weights = np.zeros(self.weights.shape[1:], np.float32)
        weights[:, : len(branches)] = [
            [branch.first_weight for branch in branches],
            [branch.last_weight for branch in branches],
        ]
        self.weights[slot] = self.upload(weights)

    def upload(self, values: npt.NDArray[Any]) -> Tensor:
        """Copies an array to the device without waiting for the steps that are running."""
        tensor = torch.from_numpy(values)
        # torch keeps pinned memory until the copies that read it have finished.
        return tensor if self.device.type == "cpu" else tensor.pin_memory().to(self.device, non_blocking=True)
