"""Calls the models for the sequences of the batch, and passes on what they return."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from dgx_music.errors import ServiceError
from generation_service.engine.failures import format_error, free_tensors, invalid_output_error, to_service_error
from generation_service.engine.model_cache import HasExecution
from generation_service.engine.scheduler import STEPS_AHEAD, choose_newcomers
from generation_service.engine.sequence import Sequence
from generation_service.engine.shared_state import LoopCalls, SharedState
from generation_service.engine.suspension.sealed_checkpoint import (
    GenerationSuspended,
    open_checkpoint,
    seal_checkpoint,
)
from generation_service.models.base import FloatArray, QueuesPrefill, ReportsProgress, SavesCheckpoints
from generation_service.models.device_errors import is_fatal
from generation_service.models.execution import ModelExecution
from service_runtime.observability.logging import get_logger

log = get_logger(__name__)

MAX_EMPTY_STEPS, MAX_SILENT_SECONDS = 1000, 60.0
"""A sequence that yields no frame and reports no progress in more consecutive steps, which took longer together, would
never end, so it fails.
One limit alone would be wrong: a fast model returns from many steps while the device works, and a slow one needs its
time."""
GOOD_STEPS = 16
"""Steps beyond the failed one after which a sequence returns to the shared batch. Doubled with each failure."""


class BatchRunner:
    """Prefills, steps, releases and ends sequences. Used by the device thread alone."""

    def __init__(self, shared: SharedState, calls: LoopCalls) -> None:
        self._shared = shared
        self._calls = calls
        self._last_group = 0
        self.call_started_at: float | None = None
        """When the current prefill or step started, by the engine's clock. None during loading and between calls."""

    def prefill(self, sequence: Sequence) -> float:
        """Gives the sequence a state. Returns for how many seconds the device works for that, as far as known and
        beside the call itself. Raises whatever the model raises."""
        model = self._shared.models.get(sequence.info)
        self.call_started_at = self._shared.clock()
        try:
            parameters, execution = sequence.parameters, self._execution_of(model)
            payload = open_checkpoint(parameters.checkpoint, sequence.info, execution, parameters)
            if parameters.checkpoint:
                parameters = replace(parameters, checkpoint=payload)
            sequence.state = model.prefill(parameters)
            sequence.is_resumed = bool(payload) and isinstance(model, SavesCheckpoints)
        finally:
            self.call_started_at = None
        sequence.model_progress = sequence.state.progress if isinstance(sequence.state, ReportsProgress) else None
        return model.prefill_seconds if isinstance(model, QueuesPrefill) else 0.0

    def step(self, batch: list[Sequence]) -> None:
        """Steps a batch of the scheduler once, delivers its audio, and ends the sequences that are done.

        Before that, its newcomers take a few steps by themselves. Raises an error that is fatal for the device; any
        other ends or restarts the sequences concerned.
        """
        group = batch[0].group
        for _ in range(STEPS_AHEAD):
            newcomers = choose_newcomers(batch)
            if not newcomers:
                break
            self._step(newcomers, group)
            self._calls.send()
        self._step(batch, group)

    def _step(self, batch: list[Sequence], group: int) -> None:
        """Steps those sequences that are ready and still in their batch's group."""
        shared = self._shared
        with shared.lock:
            batch = [sequence for sequence in batch if sequence.is_ready and sequence.group == group]
        if not batch:
            return
        info = batch[0].info
        self.call_started_at = started_at = shared.clock()
        try:
            blocks = shared.models.get(info).step([sequence.state for sequence in batch])
            if len(blocks) != len(batch):
                raise ValueError(f"{len(blocks)} blocks for {len(batch)} states")
        except Exception as error:
            self._handle_failure(batch, error)
            return
        finally:
            self.call_started_at = None
        seconds = shared.clock() - started_at
        delivered = []
        for sequence, block in zip(batch, blocks, strict=True):
            sequence.steps += 1
            sequence.timings.steps += 1
            sequence.timings.batch_rows += len(batch)
            sequence.silent_seconds += seconds
            if sequence.model_progress is not None:
                _note_progress(sequence)
            if isinstance(block, ServiceError):
                self.fail(sequence, f"at step {sequence.steps}", block)
            elif (problem := _find_problem(sequence, block)) is not None:
                self.finish(sequence, invalid_output_error(sequence, problem))
            elif len(block):
                step_seconds = sequence.silent_seconds
                delivered.append((sequence, self._deliver(sequence, block), step_seconds))
            if sequence.group and sequence.steps >= sequence.rejoin_at_step:
                sequence.group = 0
        frames = 0
        with shared.lock:  # The blocks reach the event loop later.
            for sequence, count, step_seconds in delivered:
                frames += count
                sequence.frames_buffered += count
                shared.throughput.record_block(info.name, count / info.sample_rate_hz, step_seconds)
            shared.throughput.record_step(frames / info.sample_rate_hz, seconds, len(batch))

    def _deliver(self, sequence: Sequence, block: FloatArray) -> int:
        """Passes the frames that are not a replay to the sink, and finishes the sequence after its last frame. Returns
        the number of frames passed."""
        new = block[max(0, sequence.frames_delivered - sequence.frames_produced) :]
        sequence.frames_produced += len(block)
        sequence.empty_steps, sequence.silent_seconds = 0, 0.0
        if len(new):
            sequence.timings.first_block_at = sequence.timings.first_block_at or self._shared.clock()
            sequence.frames_delivered += len(new)
            self._calls.add(sequence.sink.on_block, new)
        if sequence.frames_produced == sequence.parameters.frames:
            self.finish(sequence, None)
        return len(new)

    def _handle_failure(self, batch: list[Sequence], error: Exception) -> None:
        """Restarts the sequences of a failed batch in two halves, or fails the only one.

        It is unknown which sequence caused the failure and how far the states advanced. A state's samples do not depend
        on the rest of the batch, so a restarted sequence replays what was already delivered.
        """
        if len(batch) == 1:
            self.fail(batch[0], f"at step {batch[0].steps + 1}", error)
            return
        if is_fatal(error):
            raise error
        log.warning("batch_failed", model=batch[0].info.name, rows=len(batch), error=format_error(error))
        free_tensors(error)
        for sequence in batch:
            self.release(sequence)
        half = len(batch) // 2
        for part in batch[:half], batch[half:]:
            self._last_group += 1
            for sequence in part:
                self._restart(sequence, self._last_group)

    def _restart(self, sequence: Sequence, group: int) -> None:
        sequence.group = group
        sequence.rejoin_at_step = max(sequence.rejoin_at_step, sequence.steps + (GOOD_STEPS << sequence.failures))
        sequence.failures += 1
        sequence.frames_produced = sequence.steps = sequence.empty_steps = 0
        sequence.silent_seconds = 0.0
        try:
            self.prefill(sequence)
        except Exception as error:
            self.fail(sequence, "while restarting", error)

    def fail(self, sequence: Sequence, when: str, error: Exception) -> None:
        """Fails the request that caused the error. Raises the error instead if the device is lost with it."""
        if is_fatal(error):
            raise error
        self.finish(sequence, to_service_error(sequence.info.name, when, error))

    def finish(self, sequence: Sequence, error: ServiceError | None) -> None:
        """Removes a sequence from the batch and tells its reader."""
        if error is not None:
            failed = log.bind(**sequence.log_fields)
            failed.warning("generation_failed", model=sequence.info.name, error=error.message, exc_info=error.__cause__)
        with self._shared.lock:
            self._shared.scheduler.finish(sequence)
        self.release(sequence)
        sequence.timings.ended_at = self._shared.clock()
        self._calls.add(sequence.sink.on_finished, error)

    def suspend(self, sequence: Sequence) -> None:
        """Ends a request that the scheduler has removed, with a checkpoint of what was done."""
        checkpoint, state = sequence.parameters.checkpoint, sequence.state
        try:
            if state is not None:
                checkpoint = self._save_checkpoint(sequence) or checkpoint
        except Exception as error:  # It starts at the beginning, or where it did this time.
            if is_fatal(error):
                raise
            log.error("checkpoint_failed", model=sequence.info.name, exc_info=error)
        self.release(sequence)
        sequence.timings.ended_at = self._shared.clock()
        self._calls.add(sequence.sink.on_finished, GenerationSuspended(checkpoint))

    def _save_checkpoint(self, sequence: Sequence) -> bytes:
        model = self._shared.models.get(sequence.info)
        if not isinstance(model, SavesCheckpoints):
            return b""
        payload = model.save_checkpoint(sequence.state)
        return seal_checkpoint(payload, sequence.info, self._execution_of(model), sequence.parameters)

    @staticmethod
    def _execution_of(model: object) -> ModelExecution | None:
        return model.execution() if isinstance(model, HasExecution) else None

    def release(self, sequence: Sequence) -> None:
        """Frees the state of a sequence, if it has one."""
        state, sequence.state = sequence.state, None
        if state is None:
            return
        try:
            self._shared.models.get(sequence.info).release(state)
        except Exception as error:  # Only memory is lost; the other requests continue.
            log.error("state_release_failed", model=sequence.info.name, exc_info=error)


def _note_progress(sequence: Sequence) -> None:
    progress = sequence.state.progress
    if progress > sequence.model_progress:
        sequence.model_progress, sequence.empty_steps = progress, 0


def _find_problem(sequence: Sequence, block: Any) -> str | None:
    """Returns what is wrong with the output of a step, and counts it if it is empty."""
    frames, channels = sequence.parameters.frames, sequence.info.channels
    if block.ndim != 2 or block.shape[1] != channels or block.dtype != np.float32:
        return f"{block.dtype} {list(block.shape)}, expected float32 [n, {channels}]"
    if len(block):
        produced = sequence.frames_produced + len(block)
        return f"{produced} frames, expected {frames}" if produced > frames else None
    sequence.empty_steps += 1
    if sequence.empty_steps > MAX_EMPTY_STEPS and sequence.silent_seconds > MAX_SILENT_SECONDS:
        return f"{sequence.frames_produced} frames, expected {frames}"
    return None
