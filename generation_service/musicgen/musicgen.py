"""MusicGen behind the engine's interface: prompt in, audio as the codes of its frames are made."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch

from generation_service.model import FloatArray, GenerationParameters, MetadataValue, ModelInfo
from generation_service.musicgen.conditioner import TextConditioner
from generation_service.musicgen.delay import DelayedCodes
from generation_service.musicgen.encodec import Encodec, StreamingDecoder
from generation_service.musicgen.kv_cache import KvCache, KvMemory
from generation_service.musicgen.lm import LanguageModel
from generation_service.musicgen.sampling import Sampler
from service_runtime.errors import InvalidArgument

CHUNK_FRAMES: Final = (5, 10, 25, 50)
"""Frames of codes that are decoded at once: few at first, so that sound begins early; then many, which costs less."""


@dataclass(slots=True)
class MusicGenState:
    """One request: its KV rows, its codes so far, the decoder's memory, its random numbers."""

    frames: int
    """Of audio, to be delivered in all."""
    cache: KvCache
    codes: DelayedCodes
    sampler: Sampler
    decoder: StreamingDecoder
    delivered: int = 0
    decoded: int = 0
    """Frames of codes."""
    chunks: int = 0
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)


class MusicGen:
    """Implements `generation_service.model.Model`. Made by `loading.load_musicgen`."""

    def __init__(
        self, info: ModelInfo, lm: LanguageModel, conditioner: TextConditioner, codec: Encodec, memory: KvMemory
    ) -> None:
        self._info = info
        self._lm = lm
        self._conditioner = conditioner
        self._codec = codec
        self.memory = memory

    @property
    def info(self) -> ModelInfo:
        return self._info

    def prefill(self, parameters: GenerationParameters) -> MusicGenState:
        """Encode the prompt and reserve KV memory for all steps.

        Raises InvalidArgument for more frames than a window has, ResourceExhausted where the memory is taken.
        """
        limit = round(self._info.max_duration_seconds * self._info.sample_rate_hz)
        if parameters.frames > limit:
            raise InvalidArgument("duration_seconds", f"{parameters.frames} frames; this model makes at most {limit}")
        config = self._lm.config
        count = math.ceil(parameters.frames / self._codec.config.hop_frames)
        codes = DelayedCodes(config.delays, count, config.card)
        text = self._conditioner.encode(parameters.prompt)
        cache = self.memory.reserve(codes.steps, 0 if text is None else len(text))
        try:
            self._lm.condition(cache, text)
            return MusicGenState(
                frames=parameters.frames,
                cache=cache,
                codes=codes,
                sampler=Sampler(parameters),
                decoder=StreamingDecoder(self._codec, self._info.channels),
            )
        except BaseException:
            self.memory.release(cache)
            raise

    def step(self, states: Sequence[MusicGenState]) -> list[FloatArray]:
        """One more code of every codebook for each; audio, [n, channels], whenever a chunk of frames is ready."""
        going = [state for state in states if not state.codes.is_done]
        if going:
            logits = self._lm.step(torch.stack([state.codes.last for state in going]), [state.cache for state in going])
            for state, own in zip(going, logits, strict=True):
                state.codes.add(state.sampler.draw(own))
        return [self._decode(state) for state in states]

    def release(self, state: MusicGenState) -> None:
        """Free the KV memory."""
        self.memory.release(state.cache)

    def _decode(self, state: MusicGenState) -> FloatArray:
        ready = state.codes.frames_ready
        is_last = state.codes.is_done
        chunk = CHUNK_FRAMES[min(state.chunks, len(CHUNK_FRAMES) - 1)]
        if state.delivered == state.frames or (ready - state.decoded < chunk and not is_last):
            return np.zeros((0, self._info.channels), np.float32)
        block = state.decoder.push(state.codes.frames(state.decoded, ready), is_last=is_last)
        state.decoded = ready
        state.chunks += 1
        block = block[: state.frames - state.delivered]
        state.delivered += len(block)
        return block
