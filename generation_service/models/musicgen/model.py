"""MusicGen behind the engine's `Model` interface: it decodes audio chunk by chunk while the codes are generated."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch

from dgx_music.errors import InvalidArgument
from generation_service.models.base import (
    FloatArray,
    GenerationParameters,
    MetadataValue,
    ModelInfo,
    Section,
    TooLarge,
)
from generation_service.models.musicgen.codec.encodec import Encodec, StreamingDecoder
from generation_service.models.musicgen.conditioners.t5_conditioner import TextConditioner
from generation_service.models.musicgen.lm.kv_cache import KvCache, KvCachePool
from generation_service.models.musicgen.lm.language_model import LanguageModel
from generation_service.models.musicgen.sampling import SamplingTensors, sample
from generation_service.models.musicgen.sliding_window import WindowedCodes, window_stride

CHUNK_FRAMES: Final = (5, 10, 25, 50)
"""Frames of codes decoded at once: few at first, so that audio starts early, then many, which is more efficient."""


@dataclass(slots=True)
class MusicGenState:
    """One request: its KV cache, its codes so far, its sampler, and the state of its decoder."""

    frames: int
    """Audio frames to deliver in all."""
    cache: KvCache
    codes: WindowedCodes
    parameters: GenerationParameters
    decoder: StreamingDecoder
    prompt_code_frames: int = 0
    """Frames of codes of the clip that is continued. They are decoded, because later audio depends on them, and the
    audio is dropped."""
    sample_count: int = 0
    """Steps sampled so far."""
    frames_to_drop: int = 0
    """Audio frames still to be dropped."""
    frames_delivered: int = 0
    """Audio frames delivered so far."""
    code_frames_decoded: int = 0
    """Frames of codes decoded so far."""
    chunks_decoded: int = 0
    """Chunks of new codes decoded so far."""
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)
    sections: Sequence[Section] = ()

    @property
    def needs_prefill(self) -> bool:
        """Whether the model still has to read known codes before it can generate the next."""
        return self.cache.position < self.codes.step


class MusicGen:
    """Implements `generation_service.models.base.Model`. Built by `loader.load_musicgen`."""

    def __init__(
        self, info: ModelInfo, lm: LanguageModel, conditioner: TextConditioner, codec: Encodec, memory: KvCachePool
    ) -> None:
        self._info = info
        self._lm = lm
        self._conditioner = conditioner
        self._codec = codec
        self._window = int(lm.config.max_duration_seconds * codec.config.frame_rate_hz)  # Rounded as in audiocraft.
        self.memory = memory

    @property
    def info(self) -> ModelInfo:
        return self._info

    @property
    def prompt_batch_size(self) -> int:
        return self._conditioner.prompt_batch_size

    def encode_prompts(self, prompts: Sequence[str]) -> None:
        """Encodes prompts for a later `prefill`. Any thread can call it."""
        self._conditioner.encode_prompts(prompts)

    def prefill(self, parameters: GenerationParameters) -> MusicGenState:
        """Encodes the prompt and reserves KV cache memory for all steps.

        Raises InvalidArgument if the duration is too long or the clip too short to be continued, TooLarge if the KV
        cache would not even fit into an idle model, ResourceExhausted if other requests use the memory that it needs.
        """
        limit = round(self._info.max_duration_seconds * self._info.sample_rate_hz)
        if parameters.frames > limit:
            problem = f"{parameters.frames} frames; this model generates at most {limit}"
            raise InvalidArgument("duration_seconds", problem)
        config, hop = self._lm.config, self._codec.config.hop_frames
        new = math.ceil(parameters.frames / hop)
        clip = parameters.prompt_audio
        prompt_frames = 0 if clip is None else self._count_prompt_frames(len(clip), new)
        text = self._conditioner.encode(parameters.prompt)
        positions = min(prompt_frames + new, self._window) + config.max_delay
        tokens = 0 if text is None else len(text)
        if self.memory.size_bytes(positions, tokens) > self.memory.limit_bytes:
            raise self._too_large(positions, tokens, prompt_frames)
        cache = self.memory.reserve(positions, tokens)
        try:
            self._lm.condition(cache, text)
            prompt = None
            if clip is not None:
                prompt = self._codec.encode(clip[-prompt_frames * hop :].copy())  # torch needs a writable array.
            return MusicGenState(
                frames=parameters.frames,
                cache=cache,
                codes=WindowedCodes(config.delays, prompt_frames + new, config.card, self._window, prompt),
                parameters=parameters,
                decoder=StreamingDecoder(self._codec, self._info.channels),
                prompt_code_frames=prompt_frames,
                frames_to_drop=prompt_frames * hop,
            )
        except BaseException:
            self.memory.release(cache)
            raise

    def step(self, states: Sequence[MusicGenState]) -> list[FloatArray]:
        """Runs one decode step: one more code of every codebook for each state.

        Returns audio, [n, channels], for the states that have a chunk of codes ready, and [0, channels] for the others.
        If states need a prefill (a clip, or the end of their last window), the first of them reads one piece of it.
        """
        active = [state for state in states if not state.codes.is_done]
        behind = next((state for state in active if state.needs_prefill), None)
        if behind is not None:
            first = behind.cache.position
            end = min(first + self._lm.max_prefill_positions, behind.codes.step)
            self._lm.prefill(behind.codes.inputs(first, end), behind.cache)
        batch = [state for state in active if not state.needs_prefill]
        if batch:
            inputs = torch.stack([state.codes.newest for state in batch])
            logits = self._lm.step(inputs, [state.cache for state in batch])
            for state, codes in zip(batch, self._sample(logits, batch), strict=True):
                if state.codes.append(codes):
                    state.cache.rewind()
        return [self._decode_chunk(state) for state in states]

    def release(self, state: MusicGenState) -> None:
        """Frees the state's KV cache."""
        self.memory.release(state.cache)

    def _sample(self, logits: torch.Tensor, states: Sequence[MusicGenState]) -> torch.Tensor:
        """logits: [B, 2, K, card] → codes: int64 [B, K], on the CPU."""
        card = self._lm.config.card
        tensors = SamplingTensors.from_parameters([state.parameters for state in states], card)
        counts = torch.tensor([state.sample_count for state in states])
        for state in states:
            state.sample_count += 1
        return sample(
            logits.float().cpu(),
            tensors,
            counts,
            max_top_k=int(tensors.top_k.max()),
            uses_top_p=any(state.parameters.top_p for state in states),
        )

    def _too_large(self, positions: int, tokens: int, prompt_frames: int) -> TooLarge:
        size, limit = self.memory.size_bytes(positions, tokens), self.memory.limit_bytes
        fitting = bisect_right(range(positions), limit, key=lambda count: self.memory.size_bytes(count, tokens)) - 1
        code_frames = fitting - self._lm.config.max_delay - prompt_frames
        seconds = code_frames * self._codec.config.hop_frames / self._info.sample_rate_hz
        return TooLarge(
            "duration_seconds",
            f"the KV cache would need {size / 2**20:.1f} MiB, but all requests together have {limit / 2**20:.1f} MiB; "
            + (f"request at most {math.floor(seconds * 10) / 10:g} s, or " if seconds >= 0.1 else "")
            + "start the server with more free memory",
        )

    def _count_prompt_frames(self, frames: int, new: int) -> int:
        """How many frames of codes at the end of a clip are read before `new` ones are generated.

        The clip has `frames` audio frames.
        As many as leave room for the new ones in the same window, but not fewer than one window passes to the next.
        """
        hop = self._codec.config.hop_frames
        if frames < hop:
            problem = f"it has {frames} frames of audio; at least {hop} are needed to continue it"
            raise InvalidArgument("continuation.source_id", problem)
        return min(frames // hop, self._window - min(new, window_stride(self._window)))

    def _decode_chunk(self, state: MusicGenState) -> FloatArray:
        """The next chunk of audio, or none if its codes are not ready.

        Chunk boundaries do not depend on the other requests, so that the samples round the same in any batch.
        """
        if state.code_frames_decoded < state.prompt_code_frames:
            end = min(state.code_frames_decoded + CHUNK_FRAMES[-1], state.prompt_code_frames)
        else:
            chunk_frames = CHUNK_FRAMES[min(state.chunks_decoded, len(CHUNK_FRAMES) - 1)]
            end = min(state.code_frames_decoded + chunk_frames, state.codes.total_frames)
        if state.code_frames_decoded == end or state.codes.frames_ready < end:
            return np.zeros((0, self._info.channels), np.float32)
        codes = state.codes.frames(state.code_frames_decoded, end)
        block = state.decoder.decode_chunk(codes, is_last=end == state.codes.total_frames)
        state.chunks_decoded += state.code_frames_decoded >= state.prompt_code_frames
        state.code_frames_decoded = end
        dropped = min(len(block), state.frames_to_drop)
        state.frames_to_drop -= dropped
        block = block[dropped : dropped + state.frames - state.frames_delivered]
        state.frames_delivered += len(block)
        return block
