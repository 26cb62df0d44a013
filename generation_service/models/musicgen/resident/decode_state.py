"""The state of all requests in tensors at fixed addresses, for captured decode steps to read and write.

Every request has a slot. The host writes to the slot between two steps, in the order of the device's stream, so that it
needs to wait for no step. A slot that is not in use needs no clean-up: a step computes only the slots that it lists.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from generation_service.models.base import GenerationParameters
from generation_service.models.musicgen.checkpoints.config import LmConfig
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
from generation_service.models.musicgen.resident.page_pool import RequestPages
from generation_service.models.musicgen.sampling import CFG_ROWS, SamplingTensors

MAX_PROMPT_TOKENS = 512
"""The longest prompt, which is also the longest that T5 was trained on."""


class DecodeState:
    """S slots, and one more, the padding slot, for the rows that fill up a step to its batch size.

    Implements `step_ends.StepState`.
    """

    def __init__(self, config: LmConfig, slots: int, positions: int, device: torch.device) -> None:
        """`positions` is the number of positions of the longest window."""
        self.device = device
        self._card = config.card
        self.padding_slot = slots
        self.max_positions = -(-positions // PAGE_POSITIONS) * PAGE_POSITIONS
        """The positions of a row's pages."""

        def zeros(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.zeros(slots + 1, *shape, dtype=dtype, device=device)

        self.codes = zeros(config.n_q, positions + 1)
        """int64 [S + 1, K, positions + 1]: `DelayedCodes.columns` of each window."""
        self.integers = torch.zeros(6, slots + 1, dtype=torch.int64, device=device)
        """int64 [6, S + 1]. POSITION is the next position to read, at which the newest codes are."""
        self.integers[TOP_K] = 1  # The padding slot is sampled, too.
        self.floats = torch.zeros(3, slots + 1, device=device)
        """fp32 [3, S + 1]."""
        self.tables = zeros(CFG_ROWS, self.max_positions // PAGE_POSITIONS, dtype=torch.int32)
        """int32 [S + 1, 2, P]: the page tables of the conditional and the unconditional row."""
        self.prompt_tables = zeros(CFG_ROWS, MAX_PROMPT_TOKENS // PAGE_POSITIONS, dtype=torch.int32)
        """int32 [S + 1, 2, Pc]: the same for the prompts. The unconditional row has none."""
        self.prompt_tokens = zeros(CFG_ROWS)
        """int64 [S + 1, 2]: the lengths of the prompts; 0 for the unconditional row, whose cross-attention is 0."""
        self.rows = torch.full((slots,), slots, device=device)
        """int64 [S]: the slots of a step, from the first on. Those of rows without a request are the padding slot."""
        self.results = zeros(config.n_q + 1)[:slots]
        """int64 [S, K + 1]: for each row of the last step the sampled codes, and whether all logits were finite."""
        self.prefill = torch.zeros(2, dtype=torch.int64, device=device)
        """int64 [2]: the slot and the first position that a prefill reads."""
        self.prompt = torch.zeros(MAX_PROMPT_TOKENS, config.dim, device=device)
        """fp32 [MAX_PROMPT_TOKENS, dim]: the encoded prompt whose keys and values are computed."""
        self.prompt_slot = torch.zeros(1, dtype=torch.int64, device=device)
        """int64 [1]: the slot that it belongs to."""

    def write_request(self, slot: int, pages: RequestPages, tokens: int) -> None:
        """Writes where the keys and values of a request are."""
        tables = np.zeros(self.tables.shape[1:], np.int32)
        tables[:, : pages.rows.shape[1]] = pages.rows
        prompt_tables = np.zeros(self.prompt_tables.shape[1:], np.int32)
        prompt_tables[0, : len(pages.prompt)] = pages.prompt
        self.tables[slot] = self.upload(tables)
        self.prompt_tables[slot] = self.upload(prompt_tables)
        self.prompt_tokens[slot] = self.upload(np.array([tokens, 0]))

    def write_window(
        self, slot: int, parameters: GenerationParameters, window: DelayedCodes, sample_count: int
    ) -> None:
        """Writes the known codes of a window, the position of its first step, and how to sample."""
        sampling = SamplingTensors.from_parameters([parameters], self._card)
        integers = np.zeros(6, np.int64)
        integers[[POSITION, SAMPLE_COUNT]] = window.prompt_frames, sample_count
        integers[[PROMPT_FRAMES, FRAMES]] = window.prompt_frames, window.frames
        integers[[TOP_K, SEED]] = int(sampling.top_k), parameters.seed
        self.codes[slot, :, : window.columns.shape[1]] = self.upload(window.columns)
        self.integers[:, slot] = self.upload(integers)
        self.floats[:, slot] = self.upload(
            torch.cat([sampling.guidance_scale, sampling.temperature, sampling.top_p]).numpy()
        )

    def upload(self, values: npt.NDArray[Any]) -> Tensor:
        """Copies an array to the device without waiting for the steps that are running."""
        tensor = torch.from_numpy(values)
        # torch keeps pinned memory until the copies that read it have finished.
        return tensor if self.device.type == "cpu" else tensor.pin_memory().to(self.device, non_blocking=True)
