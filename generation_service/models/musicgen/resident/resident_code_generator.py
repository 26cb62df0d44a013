"""Generates codes with all state on the device: steps are launched ahead of their results."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product, takewhile

import numpy as np
from torch import Tensor

from dgx_music.errors import InvalidArgument, ResourceExhausted
from generation_service.models.base import GenerationParameters
from generation_service.models.musicgen.checkpoints.config import LmConfig
from generation_service.models.musicgen.code_generator import CodeRow, Reservation, StepResult
from generation_service.models.musicgen.conditions import WindowConditions
from generation_service.models.musicgen.delay_pattern import DelayedCodes
from generation_service.models.musicgen.lm.decoder_layers import DecoderWeights
from generation_service.models.musicgen.lm.kv_cache import RETRY_SECONDS
from generation_service.models.musicgen.resident.decode_operations import DecodeOperations
from generation_service.models.musicgen.resident.decode_state import MAX_PROMPT_TOKENS, DecodeState
from generation_service.models.musicgen.resident.decode_step import (
    MAX_TOP_K,
    DecodeStep,
    PrefillShape,
    PromptShape,
    StepShape,
)
from generation_service.models.musicgen.resident.page_pool import PagePool, RequestPages
from generation_service.models.musicgen.resident.prefill_pace import (
    CudaStopwatch,
    DeviceTimer,
    HostStopwatch,
    PrefillPace,
)
from generation_service.models.musicgen.resident.step_graphs import CudaGraphs, DirectCalls, StepGraphs
from generation_service.models.musicgen.resident.step_pipeline import CopyResults, StepPipeline, copy_results
from generation_service.models.musicgen.resident.step_stream import StepStream, on_step_stream

LENGTH_BUCKETS = (128, 256, 512, 1024)
"""The numbers of positions that self-attention may read; the largest is that of the longest window."""
TOKEN_BUCKETS = (64, MAX_PROMPT_TOKENS)
"""The same for the tokens of a prompt."""
PREFILL_POSITIONS = 128
"""Positions in a piece of a prefill."""


@dataclass(eq=False, slots=True, kw_only=True)
class ResidentRow(CodeRow):
    """A row, its slot in the state, and its pages."""

    slot: int
    pages: RequestPages
    tokens: int
    """The length of the prompt."""
    text: Tensor | None = None
    samples_any: bool
    """Whether the request needs a step in which any top-k and top-p is possible."""


class ResidentCodeGenerator:
    """Implements `code_generator.CodeGenerator` on any device. It is made for GPUs; on the CPU it is tested."""

    def __init__(
        self,
        config: LmConfig,
        weights: DecoderWeights,
        operations: DecodeOperations,
        pool: PagePool,
        *,
        slots: int,
        positions: int,
        prefill_positions: int = PREFILL_POSITIONS,
        length_buckets: Sequence[int] = LENGTH_BUCKETS,
        copy_results: CopyResults = copy_results,
    ) -> None:
        """`slots` is the number of requests at a time, and `positions` what the longest window needs."""
        self.config = config
        self.memory = pool
        self._needs_shape_for_any = not operations.samples_in_one_shape
        device = pool.device
        self.step_stream = StepStream(device)
        self._state = DecodeState(config, slots, positions, device)
        self._step = DecodeStep(config, weights, operations, self._state, pool, prefill_positions)
        self._prefill_positions = prefill_positions
        self._batches = [*takewhile(lambda size: size < slots, (1 << n for n in range(16))), slots]
        longest = self._state.max_positions
        self._lengths = [*takewhile(lambda length: length < longest, length_buckets), longest]
        is_cuda = device.type == "cuda"
        self._graphs: StepGraphs = CudaGraphs() if is_cuda else DirectCalls()
        start_stopwatch = CudaStopwatch if is_cuda else HostStopwatch
        self._pace, self._prompt_timer = PrefillPace(start_stopwatch), DeviceTimer(start_stopwatch)
        self._pipeline = StepPipeline[tuple[ResidentRow, ...]](slots, config.n_q + 1, device, copy_results)
        self._free_slots = list(range(slots - 1, -1, -1))
        self._current: list[int] = []
        """The slots that `DecodeState.rows` holds, without the padding."""
        self.step_stream.follow_caller()  # The weights, the pool and the state were written there.

    @on_step_stream
    def warm_up(self) -> None:
        """Captures all shapes but those for unusual sampling parameters, which are captured when they first occur."""
        # The largest first: the others fit into the memory that it takes.
        for positions, tokens in product(reversed(self._lengths), reversed(TOKEN_BUCKETS)):
            for batch in reversed(self._batches):
                self._prepare(StepShape(batch, positions, tokens, samples_any=False))
            self._prepare(PrefillShape(positions, tokens))
        for tokens in reversed(TOKEN_BUCKETS):
            self._prepare(PromptShape(tokens))
        self._prompt_timer.measure(partial(self._graphs.replay, PromptShape(TOKEN_BUCKETS[0])))  # Of the padding slot.

    @property
    def open_seconds(self) -> float:
        return self._prompt_timer.seconds

    def open(self, parameters: GenerationParameters, reservation: Reservation) -> ResidentRow:
        tokens = reservation.tokens
        if tokens > MAX_PROMPT_TOKENS:
            problem = f"has {tokens} tokens; on a GPU, this model reads at most {MAX_PROMPT_TOKENS}"
            raise InvalidArgument("prompt", problem)
        if not self._free_slots:
            raise ResourceExhausted(
                f"all {self._state.padding_slot} places in the batch are taken; retry when a generation has finished",
                reason="BATCH_FULL",
                retry_after_seconds=RETRY_SECONDS,
            )
        pages = self.memory.reserve(reservation)
        slot = self._free_slots.pop()
        return ResidentRow(
            parameters,
            slot=slot,
            pages=pages,
            tokens=tokens,
            samples_any=self._needs_shape_for_any and not (1 <= parameters.top_k <= MAX_TOP_K and not parameters.top_p),
        )

    def begin_window(self, row: ResidentRow, window: DelayedCodes, conditions: WindowConditions) -> None:
        is_first = not row.sample_count
        row.window, row.conditions = window, conditions
        row.prefix_position = row.position = 0
        text = conditions.branches[0].condition.text
        if is_first or text is not row.text:
            row.text, row.tokens = text, 0 if text is None else len(text)
            self._write_prompt(row, text)
        self._write_window(row)

    @on_step_stream
    def _write_window(self, row: ResidentRow) -> None:
        self._state.write_window(row.slot, row.parameters, row.window, row.sample_count)

    @on_step_stream
    def prefill(self, row: ResidentRow) -> None:
        end, size = row.window.prompt_frames, self._prefill_positions
        pieces = min(self._pace.pieces, -(-(end - row.position) // size))
        self._pace.measure(pieces, partial(self._read_pieces, row, pieces))
        row.position = min(row.position + pieces * size, end)

    @on_step_stream
    def launch(self, rows: Sequence[ResidentRow]) -> None:
        slots, position, tokens, samples_any = [], 0, 0, False
        for row in rows:
            slots.append(row.slot)
            position = max(position, row.position)
            tokens = max(tokens, row.tokens)
            samples_any |= row.samples_any
        shape = StepShape(
            _bucket(len(rows), self._batches),
            _bucket(position + 1, self._lengths),
            _bucket(tokens, TOKEN_BUCKETS),
            samples_any,
        )
        self._prepare(shape)
        self._select(slots)
        self._graphs.replay(shape)
        self._pipeline.push(tuple(rows), self._state.results[: len(rows)])
        for row in rows:
            row.position += 1
            row.sample_count += 1

    def collect(self, *, wait: bool) -> list[StepResult[ResidentRow]]:
        return [
            StepResult(rows, results[:, :-1], results[:, -1] != 0) for rows, results in self._pipeline.pop(wait=wait)
        ]

    def close(self, row: ResidentRow) -> None:
        row.is_open = False
        self.memory.release(row.pages)
        self._free_slots.append(row.slot)

    def _write_prompt(self, row: ResidentRow, text: Tensor | None) -> None:
        if text is not None:
            self.step_stream.follow_caller(text)
        with self.step_stream.use():
            self._state.write_request(row.slot, row.pages, row.tokens)
            if text is not None:
                self._project_prompt(row.slot, text)

    def _project_prompt(self, slot: int, text: Tensor) -> None:
        shape = PromptShape(_bucket(len(text), TOKEN_BUCKETS))
        self._prepare(shape)
        self._state.prompt[: len(text)] = text.to(self._state.device)
        self._state.prompt_slot.copy_(self._state.upload(np.array([slot])))
        self._prompt_timer.measure(partial(self._graphs.replay, shape))

    def _read_pieces(self, row: ResidentRow, pieces: int) -> None:
        first, size = row.position, self._prefill_positions
        for start in range(first, first + pieces * size, size):
            shape = PrefillShape(_bucket(start + size, self._lengths), _bucket(row.tokens, TOKEN_BUCKETS))
            self._prepare(shape)
            self._state.prefill.copy_(self._state.upload(np.array([row.slot, start])))
            self._graphs.replay(shape)

    def _prepare(self, shape: StepShape | PrefillShape | PromptShape) -> None:
        """Captures a shape that is not captured yet. Its runs read and write the padding slot alone."""
        if shape in self._graphs:
            return
        if isinstance(shape, StepShape):
            self._select([])
            self._graphs.capture(shape, partial(self._step.compute_step, shape))
        elif isinstance(shape, PrefillShape):
            self._state.prefill.copy_(self._state.upload(np.array([self._state.padding_slot, 0])))
            self._graphs.capture(shape, partial(self._step.compute_prefill, shape))
        else:
            self._state.prompt_slot.copy_(self._state.upload(np.array([self._state.padding_slot])))
            self._graphs.capture(shape, partial(self._step.compute_prompt, shape))

    def _select(self, slots: list[int]) -> None:
        """Writes the slots of the next step, unless they are those of the last one."""
        if slots != self._current:
            rows = np.full(self._state.padding_slot, self._state.padding_slot)
            rows[: len(slots)] = slots
            self._state.rows.copy_(self._state.upload(rows))
            self._current = slots


def _bucket(count: int, sizes: Sequence[int]) -> int:
    """The smallest of the ascending sizes that is at least `count`, or the largest of all."""
    return sizes[min(bisect_left(sizes, count), len(sizes) - 1)]
