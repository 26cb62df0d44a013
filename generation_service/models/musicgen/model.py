"""MusicGen behind the engine's `Model` interface: it decodes audio chunk by chunk while the codes are generated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from dgx_music.errors import InvalidArgument, ServiceError
from generation_service.models.base import (
    FloatArray,
    GenerationParameters,
    MetadataValue,
    ModelInfo,
    Section,
)
from generation_service.models.device_errors import is_fatal
from generation_service.models.execution import ModelExecution
from generation_service.models.musicgen.adapters.adapter_weights import LoadAdapters, load_none
from generation_service.models.musicgen.clip_encoder import ClipEncoder
from generation_service.models.musicgen.code_generator import CodeGenerator, CodeRow, KvMemory
from generation_service.models.musicgen.codec.chunk_decoder import CHUNK_FRAMES, ChunkDecoder, DecoderStream
from generation_service.models.musicgen.codec.encodec import Encodec
from generation_service.models.musicgen.conditioners.prefix_conditioner import PrefixConditioner
from generation_service.models.musicgen.conditioners.request_conditions import ConditionEncoder, RequestConditions
from generation_service.models.musicgen.conditioners.t5_conditioner import TextConditioner
from generation_service.models.musicgen.planning.request_plan import RequestPlan, plan_request
from generation_service.models.musicgen.request_errors import failure_of, not_finite_error, too_large_error
from generation_service.models.musicgen.sliding_window import WindowedCodes


@dataclass(slots=True)
class MusicGenState:
    """One request: its place in the code generator, its codes so far, and its stream in the chunk decoder."""

    frames: int
    """Audio frames to deliver in all."""
    row: CodeRow
    codes: WindowedCodes
    conditions: RequestConditions
    stream: DecoderStream
    prompt_code_frames: int = 0
    """Frames of codes of the clip that is continued. They are decoded, because later audio depends on them, and the
    audio is dropped."""
    frames_to_drop: int = 0
    """Audio frames still to be dropped."""
    frames_delivered: int = 0
    """Audio frames delivered so far."""
    code_frames_submitted: int = 0
    """Frames of codes passed to the chunk decoder so far."""
    chunks_submitted: int = 0
    """Chunks of new codes passed to the chunk decoder so far."""
    chunk_end: int = 0
    """The end of the next chunk, in frames of codes."""
    failure: ServiceError | None = None
    """Why the request can't go on."""
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)
    sections: Sequence[Section] = ()

    @property
    def is_decoding(self) -> bool:
        """Whether audio of submitted chunks may still come."""
        return self.code_frames_submitted > 0 and self.frames_delivered < self.frames

    def plan_chunk(self) -> None:
        """Sets the end of the next chunk. It does not depend on the other requests, so that the samples round the same
        in any batch."""
        first = self.code_frames_submitted
        if first < self.prompt_code_frames:
            self.chunk_end = min(first + CHUNK_FRAMES[-1], self.prompt_code_frames)
        else:
            size = CHUNK_FRAMES[min(self.chunks_submitted, len(CHUNK_FRAMES) - 1)]
            self.chunk_end = min(first + size, self.codes.total_frames)


class MusicGen:
    """Implements `generation_service.models.base.Model` on any device. Built by `loader.load_musicgen`.

    What depends on the device is in its parts: the code generator, the chunk decoder and the text conditioner.
    """

    def __init__(
        self,
        info: ModelInfo,
        generator: CodeGenerator[Any],
        conditioner: TextConditioner,
        codec: Encodec,
        decoder: ChunkDecoder,
        execution: ModelExecution,
        prefixes: PrefixConditioner | None = None,
        load_adapters: LoadAdapters = load_none,
    ) -> None:
        self._info = info
        self._generator = generator
        self._conditions = ConditionEncoder(conditioner, prefixes, load_adapters)
        self._hop = codec.config.hop_frames
        self._clips = ClipEncoder(codec)
        self._decoder = decoder
        self._execution = execution
        # Rounded as in audiocraft.
        self._window = int(generator.config.max_duration_seconds * codec.config.frame_rate_hz)
        self._states: dict[CodeRow, MusicGenState] = {}
        self._no_audio = np.zeros((0, info.channels), np.float32)

    @property
    def info(self) -> ModelInfo:
        return self._info

    @property
    def memory(self) -> KvMemory:
        """The memory of all requests' keys and values."""
        return self._generator.memory

    def execution(self) -> ModelExecution:
        """How the model runs."""
        return self._execution

    @property
    def prefill_seconds(self) -> float:
        return self._generator.open_seconds

    @property
    def prompt_batch_size(self) -> int:
        return self._conditions.batch_size

    def encode_prompts(self, requests: Sequence[GenerationParameters]) -> None:
        """Prepares texts, clips and adapters for a later `prefill`. Any thread can call it. Raises what that would."""
        plans = [self._plan(parameters) for parameters in requests]
        self._conditions.encode_ahead(requests, plans)
        for clip in (plan.clip for plan in plans if plan.clip is not None):
            self._clips.encode(clip)

    def prefill(self, parameters: GenerationParameters) -> MusicGenState:
        """Reserves KV cache memory for all steps, and projects the prompt. Encodes what `encode_prompts` has not.

        Raises InvalidArgument if the duration is too long or the clip too short to be continued, TooLarge if the KV
        cache would not even fit into an idle model, ResourceExhausted if other requests use the memory that it needs.
        """
        limit = round(self._info.max_duration_seconds * self._info.sample_rate_hz)
        if parameters.frames > limit:
            problem = f"{parameters.frames} frames; this model generates at most {limit}"
            raise InvalidArgument("duration_seconds", problem)
        config, plan = self._generator.config, self._plan(parameters)
        conditions = self._conditions.encode(parameters, plan)
        reservation = conditions.reserve(min(plan.total_frames, self._window) + config.max_delay)
        if self.memory.size_bytes(reservation) > self.memory.limit_bytes:
            new_frames = min(plan.total_frames, self._window) - plan.prompt_frames
            raise too_large_error(self.memory, reservation, new_frames, self._info.sample_rate_hz / self._hop)
        row = self._generator.open(parameters, reservation, conditions.adapters)
        try:
            prompt = None if plan.clip is None else self._clips.encode(plan.clip)
            share = config.stride_share
            codes = WindowedCodes(
                config.delays, plan.total_frames, config.card, self._window, prompt, conditions.starts, share
            )
            if parameters.checkpoint:
                codes.restore(parameters.checkpoint)
                row.sample_count = codes.generated_steps
            self._generator.begin_window(row, codes.window, conditions.at(codes.window_start, codes.first_read))
            state = MusicGenState(
                frames=parameters.frames,
                row=row,
                codes=codes,
                conditions=conditions,
                stream=self._decoder.open(),
                prompt_code_frames=plan.prompt_frames,
                frames_to_drop=plan.prompt_frames * self._hop - parameters.kept_prompt_frames,
                metadata=conditions.metadata,
            )
        except BaseException:
            self._generator.close(row)
            raise
        state.plan_chunk()
        self._states[row] = state
        return state

    def step(self, states: Sequence[MusicGenState]) -> list[FloatArray | ServiceError]:
        """Launches one decode step: one more code of every codebook for each state that has codes to generate.

        Then it collects the codes of earlier steps, submits the chunks that are due, and returns the audio that is
        ready: [n, channels], where n is mostly 0. If states need a prefill (a clip, or the end of their last window),
        one of them reads a part of it, first one without audio. A state whose logits are not finite fails alone.

        Waits for results only if no state of any batch has a step to be launched.
        """
        waiting = [state for state in states if state.row.needs_prefill]
        behind = min(waiting, key=lambda state: state.frames_delivered > 0).row if waiting else None
        if behind is not None:
            self._generator.prefill(behind)
        rows = [state.row for state in states if state.row.can_step]
        if rows:
            self._generator.launch(rows)
        can_wait = not rows and not any(
            state.row.can_step or state.row.needs_prefill for state in self._states.values()
        )
        has_codes = self._collect(wait=can_wait)
        self._submit_chunks(states)
        self._decoder.run()
        if can_wait and not has_codes:
            self._wait_for_audio(states)
        return [state.failure or self._take_audio(state) for state in states]

    def save_checkpoint(self, state: MusicGenState) -> bytes:
        """Returns the codes so far. How often the random numbers were drawn follows from them; the keys and values are
        computed from them again in one pass, and so is the audio."""
        return b"" if state.failure is not None else state.codes.save()

    def release(self, state: MusicGenState) -> None:
        """Frees the state's KV cache and its stream."""
        del self._states[state.row]
        self._decoder.close(state.stream)
        self._generator.close(state.row)

    def _collect(self, *, wait: bool) -> bool:
        """Appends the codes of the steps that have finished. Returns whether there were any."""
        results = self._generator.collect(wait=wait)
        for result in results:
            for row, codes, is_finite in zip(result.rows, result.codes, result.is_finite.tolist(), strict=True):
                if not row.is_open:
                    continue
                state = self._states[row]
                if not is_finite:
                    seed = row.parameters.seed
                    state.failure = not_finite_error(self._info.name, state.codes.frames_ready, seed)
                elif state.failure is None and state.codes.append(codes):
                    self._begin_window(state)
        return bool(results)

    def _begin_window(self, state: MusicGenState) -> None:
        """Begins the next window. If that fails, the state fails alone, for the codes of others are still to be
        appended."""
        codes = state.codes
        try:
            self._generator.begin_window(
                state.row, codes.window, state.conditions.at(codes.window_start, codes.first_read)
            )
        except Exception as error:
            if is_fatal(error):
                raise
            what = f"failed to begin the window at frame {codes.first_read} of codes"
            state.failure = failure_of(self._info.name, what, error)

    def _submit_chunks(self, states: Sequence[MusicGenState]) -> None:
        for state in states:
            first, end = state.code_frames_submitted, state.chunk_end
            if first == end or state.codes.frames_ready < end or state.failure is not None:
                continue
            is_new = first >= state.prompt_code_frames
            codes = torch.from_numpy(state.codes.select_frames(first, end))
            self._decoder.submit(
                state.stream,
                codes,
                is_last=end == state.codes.total_frames,
                is_first=is_new and not state.chunks_submitted,
            )
            state.chunks_submitted += is_new
            state.code_frames_submitted = end
            state.plan_chunk()

    def _wait_for_audio(self, states: Sequence[MusicGenState]) -> None:
        """Waits for the first state that has nothing but its audio to wait for."""
        for state in states:
            if state.is_decoding and state.failure is None:
                self._decoder.wait(state.stream)
                return

    def _take_audio(self, state: MusicGenState) -> FloatArray | ServiceError:
        """The audio that is ready, without that of the clip and what the last frame of codes has too much; or why it
        could not be decoded."""
        if not state.is_decoding:
            return self._no_audio
        try:
            block = self._decoder.take(state.stream)
        except Exception as error:
            if is_fatal(error):
                raise
            what = f"failed to decode audio after {state.frames_delivered} frames"
            state.failure = failure_of(self._info.name, what, error)
            return state.failure
        if not len(block):
            return self._no_audio
        dropped = min(len(block), state.frames_to_drop)
        state.frames_to_drop -= dropped
        block = block[dropped : dropped + state.frames - state.frames_delivered]
        state.frames_delivered += len(block)
        return block

    def _plan(self, parameters: GenerationParameters) -> RequestPlan:
        share, rate = self._generator.config.stride_share, self._info.sample_rate_hz
        return plan_request(parameters, hop=self._hop, window=self._window, sample_rate_hz=rate, stride_share=share)
