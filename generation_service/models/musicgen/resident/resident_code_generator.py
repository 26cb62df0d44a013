"""Generates codes with all state on the device: steps are launched ahead of their results."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from functools import partial
from itertools import compress, count, product, takewhile

import numpy as np
from torch import Tensor

from dgx_music.errors import InvalidArgument
from generation_service.models.base import GenerationParameters
from generation_service.models.musicgen.adapters.adapter_weights import AppliedAdapter
from generation_service.models.musicgen.checkpoints.config import LmConfig
from generation_service.models.musicgen.code_generator import Reservation, StepResult
from generation_service.models.musicgen.conditions import WindowConditions
from generation_service.models.musicgen.delay_pattern import DelayedCodes
from generation_service.models.musicgen.lm.decoder_layers import DecoderWeights
from generation_service.models.musicgen.resident.adapter_bank import AdapterBank
from generation_service.models.musicgen.resident.branches import (
    ResidentRow,
    StepLayout,
    conditions_by_row,
    lay_out_step,
)
from generation_service.models.musicgen.resident.decode_operations import DecodeOperations
from generation_service.models.musicgen.resident.decode_state import MAX_PROMPT_TOKENS, DecodeState
from generation_service.models.musicgen.resident.decode_step import (
    MAX_TOP_K,
    DecodeStep,
    PrefillShape,
    PromptShape,
    StepShape,
)
from generation_service.models.musicgen.resident.page_pool import PagePool
from generation_service.models.musicgen.resident.prefill_pace import (
    CudaStopwatch,
    DeviceTimer,
    HostStopwatch,
    PrefillPace,
)
from generation_service.models.musicgen.resident.slot_pool import SlotPool
from generation_service.models.musicgen.resident.step_graphs import CudaGraphs, DirectCalls, StepGraphs
from generation_service.models.musicgen.resident.step_pipeline import CopyResults, StepPipeline, copy_results
from generation_service.models.musicgen.resident.step_stream import StepStream, on_step_stream
from generation_service.models.musicgen.sampling import CFG_ROWS

LENGTH_BUCKETS = (128, 256, 512, 1024)
"""The numbers of positions that self-attention may read; the largest is that of the longest window."""
TOKEN_BUCKETS = (64, MAX_PROMPT_TOKENS)
"""The same for the tokens of a prompt."""
PREFILL_POSITIONS = 128
"""Positions in a piece of a prefill."""

Shape = StepShape | PrefillShape | PromptShape


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
        """`slots` is the number of requests at a time, fewer with several branches, and `positions` what the longest
        window and its prefix need."""
        self.config = config
        self.memory = pool
        self._needs_shape_for_any = not operations.samples_in_one_shape
        device = pool.device
        self.step_stream = StepStream(device)
        self._slots = SlotPool(slots)
        self._state = DecodeState(config, self._slots.count, positions, device, prefill_positions)
        self._bank = AdapterBank(device, self._slots.count)
        self._step = DecodeStep(config, weights, operations, self._state, pool, prefill_positions, self._bank)
        self._prefill_positions = prefill_positions
        powers = (1 << n for n in range(16))
        self._batches = sorted({*takewhile(lambda size: size < slots, powers), slots, self._slots.count})
        self._token_buckets = TOKEN_BUCKETS if config.has_cross_attention else TOKEN_BUCKETS[:1]
        longest = self._state.max_positions
        self._lengths = [*takewhile(lambda length: length < longest, length_buckets), longest]
        is_cuda = device.type == "cuda"
        self._graphs: StepGraphs = CudaGraphs() if is_cuda else DirectCalls()
        start_stopwatch = CudaStopwatch if is_cuda else HostStopwatch
        self._pace, self._prompt_timer = PrefillPace(start_stopwatch), DeviceTimer(start_stopwatch)
        self._pipeline = StepPipeline[tuple[ResidentRow, ...]](slots, config.n_q + 1, device, copy_results)
        self._layout = StepLayout([], None)
        """What `DecodeState.rows` and `DecodeState.sources` hold, without the padding."""
        self.step_stream.follow_caller()  # The weights, the pool and the state were written there.

    @on_step_stream
    def warm_up(self) -> None:
        """Captures all shapes but those for unusual sampling parameters, for several branches and for adapters, which
        are captured when they first occur."""
        # The largest first: the others fit into the memory that it takes.
        for positions, tokens in product(reversed(self._lengths), reversed(self._token_buckets)):
            for batch in reversed([size for size in self._batches if size <= self._slots.requests]):
                self._prepare(StepShape(batch, positions, tokens, samples_any=False))
            self._prepare(PrefillShape(positions, tokens))
            if not self.config.has_cross_attention:  # All of its requests have a prefix.
                self._prepare(PrefillShape(positions, tokens, has_prefix=True))
        if self.config.has_cross_attention:
            for tokens in reversed(TOKEN_BUCKETS):
                self._prepare(PromptShape(tokens))
            # Of the padding slot.
            self._prompt_timer.measure(partial(self._graphs.replay, PromptShape(TOKEN_BUCKETS[0])))

    @property
    def open_seconds(self) -> float:
        return self._prompt_timer.seconds

    def open(
        self, parameters: GenerationParameters, reservation: Reservation, adapters: tuple[AppliedAdapter, ...] = ()
    ) -> ResidentRow:
        if reservation.tokens > MAX_PROMPT_TOKENS:
            problem = f"has {reservation.tokens} tokens; on a GPU, this model reads at most {MAX_PROMPT_TOKENS}"
            raise InvalidArgument(reservation.longest_text, problem)
        positions = self._state.codes.shape[2] - 1
        if reservation.positions > positions:
            problem = f"needs {reservation.positions} positions with all that is read; this model has {positions}"
            raise InvalidArgument(reservation.longest_text, problem)
        slots = self._slots.reserve(reservation.branches)
        try:
            pages = self.memory.reserve(reservation)
        except BaseException:
            self._slots.release(slots)
            raise
        row = ResidentRow(
            parameters,
            slots=slots,
            pages=pages,
            samples_any=self._needs_shape_for_any and not (1 <= parameters.top_k <= MAX_TOP_K and not parameters.top_p),
            texts=[],
        )
        try:
            self._write_row(row, adapters)
        except BaseException:
            self.close(row)
            raise
        return row

    def begin_window(self, row: ResidentRow, window: DelayedCodes, conditions: WindowConditions) -> None:
        row.window, row.conditions = window, conditions
        row.prefix_position = row.position = 0
        by_row = conditions_by_row(conditions)
        texts = [condition.text for condition in by_row]
        is_new = [index >= len(row.texts) or text is not row.texts[index] for index, text in enumerate(texts)]
        row.texts[: len(texts)] = texts
        to_read = [*compress(texts, is_new), *(condition.prefix for condition in by_row)]
        if tensors := [tensor for tensor in to_read if tensor is not None and tensor.is_cuda]:
            self.step_stream.follow_caller(*tensors)
        self._write_window(row, texts, is_new)

    @on_step_stream
    def prefill(self, row: ResidentRow) -> None:
        prefix, size, slots = row.conditions.prefix_positions, self._prefill_positions, len(row.window_slots)
        first, end = row.prefix_position + row.position, prefix + row.window.known_steps
        pieces = min(max(1, self._pace.pieces // slots), -(-(end - first) // size))
        self._pace.measure(pieces * slots, partial(self._read_pieces, row, first, pieces))
        reached = min(first + pieces * size, end)
        row.prefix_position = min(reached, prefix)
        row.position = reached - row.prefix_position

    @on_step_stream
    def launch(self, rows: Sequence[ResidentRow]) -> None:
        position, tokens, samples_any = 0, 0, False
        for row in rows:
            position = max(position, row.prefix_position + row.position)
            tokens = max(tokens, row.tokens)
            samples_any |= row.samples_any
        layout = lay_out_step(rows, self._state.padding_slot)
        shape = StepShape(
            _bucket(len(layout.slots), self._batches),
            _bucket(position + 1, self._lengths),
            _bucket(tokens, self._token_buckets),
            samples_any,
            combines=layout.sources is not None,
            adapters=self._bank.version_for(rows),
        )
        self._prepare(shape)
        self._select(layout)
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
        self._slots.release(row.slots)
        self._bank.release(row.adapters)

    @on_step_stream
    def _write_row(self, row: ResidentRow, adapters: tuple[AppliedAdapter, ...]) -> None:
        if adapters or self._bank.version:
            self._bank.open_row(row, adapters, self._graphs)
        for index, slot in enumerate(row.slots):
            rows = slice(CFG_ROWS * index, CFG_ROWS * (index + 1))
            self._state.write_request(slot, row.pages.rows[rows], row.pages.texts[rows])

    @on_step_stream
    def _write_window(self, row: ResidentRow, texts: Sequence[Tensor | None], is_new: Sequence[bool]) -> None:
        tokens = [0 if text is None else len(text) for text in texts]
        row.tokens = max(tokens)
        for index, slot in enumerate(row.window_slots):
            rows = slice(CFG_ROWS * index, CFG_ROWS * (index + 1))
            self._state.write_texts(slot, tokens[rows])
            for state_row, text, is_new_text in zip(count(CFG_ROWS * slot), texts[rows], is_new[rows]):
                if text is not None and is_new_text:
                    self._project_text(state_row, self._bank.version_for([row]), text)
            prefix = row.conditions.prefix_positions
            self._state.write_window(slot, row.parameters, row.window, row.sample_count, prefix)
        if len(row.conditions.branches) > 1:
            self._state.write_weights(row.slots[0], row.conditions.branches)

    def _project_text(self, state_row: int, adapters: int, text: Tensor) -> None:
        shape = PromptShape(_bucket(len(text), TOKEN_BUCKETS), adapters)
        self._prepare(shape)
        self._state.prompt[: len(text)] = text.to(self._state.device)
        self._state.prompt_row.copy_(self._state.upload(np.array([state_row])))
        self._prompt_timer.measure(partial(self._graphs.replay, shape))

    def _read_pieces(self, row: ResidentRow, first: int, pieces: int) -> None:
        size, prefix = self._prefill_positions, row.conditions.prefix_positions
        prefixes = [condition.prefix for condition in conditions_by_row(row.conditions)]
        for start in range(first, first + pieces * size, size):
            shape = PrefillShape(
                _bucket(start + size, self._lengths),
                _bucket(row.tokens, self._token_buckets),
                has_prefix=start < prefix,
                adapters=self._bank.version_for([row]),
            )
            for index, slot in enumerate(row.window_slots):
                self._prepare(shape)
                if shape.has_prefix:
                    of_slot = prefixes[CFG_ROWS * index : CFG_ROWS * (index + 1)]
                    pieces_of_rows = [None if each is None else each[start : start + size] for each in of_slot]
                    self._state.write_prefix(pieces_of_rows)
                self._state.prefill.copy_(self._state.upload(np.array([slot, start, prefix])))
                self._graphs.replay(shape)

    def _prepare(self, shape: Shape) -> None:
        """Captures a shape that is not captured yet. Its runs read and write the padding slot alone."""
        if shape in self._graphs:
            return
        if isinstance(shape, StepShape):
            self._select(lay_out_step([], self._state.padding_slot, combines=shape.combines))
            self._graphs.capture(shape, partial(self._step.compute_step, shape))
        elif isinstance(shape, PrefillShape):
            self._state.prefill.copy_(self._state.upload(np.array([self._state.padding_slot, 0, 0])))
            self._graphs.capture(shape, partial(self._step.compute_prefill, shape))
        else:
            self._state.prompt_row.copy_(self._state.upload(np.array([CFG_ROWS * self._state.padding_slot])))
            self._graphs.capture(shape, partial(self._step.compute_prompt, shape))

    def _select(self, layout: StepLayout) -> None:
        """Writes the slots of the next step, unless they are those of the last one."""
        state, last = self._state, self._layout
        if layout.slots != last.slots:
            rows = np.full(state.padding_slot, state.padding_slot)
            rows[: len(layout.slots)] = layout.slots
            state.rows.copy_(state.upload(rows))
        if layout.sources is not None and (last.sources is None or not np.array_equal(layout.sources, last.sources)):
            state.sources.copy_(state.upload(layout.sources))
        self._layout = layout


def _bucket(count: int, sizes: Sequence[int]) -> int:
    """The smallest of the ascending sizes that is at least `count`, or the largest of all."""
    return sizes[min(bisect_left(sizes, count), len(sizes) - 1)]
