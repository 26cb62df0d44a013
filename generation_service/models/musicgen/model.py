"""MusicGen behind the engine's interface: prompt in, audio as the codes of its frames are made."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch

from dgx_music.errors import InvalidArgument
from generation_service.models.base import FloatArray, GenerationParameters, MetadataValue, ModelInfo, TooLarge
from generation_service.models.musicgen.codec.encodec import Encodec, StreamingDecoder
from generation_service.models.musicgen.conditioners.t5_conditioner import TextConditioner
from generation_service.models.musicgen.device_sampling import draw_all
from generation_service.models.musicgen.lm.kv_cache import KvCache, KvMemory
from generation_service.models.musicgen.lm.language_model import LanguageModel
from generation_service.models.musicgen.sampling import Sampler
from generation_service.models.musicgen.sliding_window import WindowedCodes, stride_of

CHUNK_FRAMES: Final = (5, 10, 25, 50)
"""Frames of codes that are decoded at once: few at first, so that sound begins early; then many, which costs less."""


@dataclass(slots=True)
class MusicGenState:
    """One request: its KV rows, its codes so far, the decoder's memory, its random numbers."""

    frames: int
    """Of audio, to be delivered in all."""
    cache: KvCache
    codes: WindowedCodes
    sampler: Sampler
    decoder: StreamingDecoder
    given: int = 0
    """Frames of codes of the clip that is continued. They are decoded, as what follows depends on them, and dropped."""
    to_drop: int = 0
    """Frames of audio."""
    delivered: int = 0
    decoded: int = 0
    """Frames of codes."""
    chunks: int = 0
    """Decoded of what is new."""
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)

    @property
    def is_behind(self) -> bool:
        """The model has yet to read codes that are known, before it can make the next."""
        return self.cache.position < self.codes.step


class MusicGen:
    """Implements `generation_service.models.base.Model`. Made by `loading.load_musicgen`."""

    def __init__(
        self, info: ModelInfo, lm: LanguageModel, conditioner: TextConditioner, codec: Encodec, memory: KvMemory
    ) -> None:
        self._info = info
        self._lm = lm
        self._conditioner = conditioner
        self._codec = codec
        self._window = int(lm.config.max_duration_seconds * codec.config.frame_rate_hz)  # As audiocraft rounds it.
        self.memory = memory

    @property
    def info(self) -> ModelInfo:
        return self._info

    def prefill(self, parameters: GenerationParameters) -> MusicGenState:
        """Encode the prompt and reserve KV memory for all steps.

        Raises InvalidArgument for more frames than the model makes or a clip too short to be continued, TooLarge where
        there is less memory than it needs, ResourceExhausted where it is taken.
        """
        limit = round(self._info.max_duration_seconds * self._info.sample_rate_hz)
        if parameters.frames > limit:
            raise InvalidArgument("duration_seconds", f"{parameters.frames} frames; this model makes at most {limit}")
        config, hop = self._lm.config, self._codec.config.hop_frames
        new = math.ceil(parameters.frames / hop)
        clip = parameters.prompt_audio
        given = 0 if clip is None else self._count_given(len(clip), new)
        text = self._conditioner.encode(parameters.prompt)
        positions, tokens = min(given + new, self._window) + config.max_delay, 0 if text is None else len(text)
        if self.memory.size_bytes(positions, tokens) > self.memory.limit_bytes:
            raise self._too_large(positions, tokens, given)
        cache = self.memory.reserve(positions, tokens)
        try:
            self._lm.condition(cache, text)
            prompt = None if clip is None else self._codec.encode(clip[-given * hop :].copy())  # Writable, for torch.
            return MusicGenState(
                frames=parameters.frames,
                cache=cache,
                codes=WindowedCodes(config.delays, given + new, config.card, self._window, prompt),
                sampler=Sampler(parameters),
                decoder=StreamingDecoder(self._codec, self._info.channels),
                given=given,
                to_drop=given * hop,
            )
        except BaseException:
            self.memory.release(cache)
            raise

    def step(self, states: Sequence[MusicGenState]) -> list[FloatArray]:
        """One more code of every codebook for each; audio, [n, channels], whenever a chunk of frames is ready.

        Of those that have a clip or the end of their last window to read, the first reads a piece of it.
        """
        going = [state for state in states if not state.codes.is_done]
        behind = next((state for state in going if state.is_behind), None)
        if behind is not None:
            first = behind.cache.position
            end = min(first + self._lm.prefill_positions, behind.codes.step)
            self._lm.prefill(behind.codes.inputs(first, end), behind.cache)
        going = [state for state in going if not state.is_behind]
        if going:
            logits = self._lm.step(torch.stack([state.codes.last for state in going]), [state.cache for state in going])
            drawn = draw_all(logits, [state.sampler for state in going])
            for state, codes in zip(going, drawn, strict=True):
                if state.codes.add(codes):
                    state.cache.rewind()
        return [self._decode(state) for state in states]

    def release(self, state: MusicGenState) -> None:
        """Free the KV memory."""
        self.memory.release(state.cache)

    def _too_large(self, positions: int, tokens: int, given: int) -> TooLarge:
        size, limit = self.memory.size_bytes(positions, tokens), self.memory.limit_bytes
        fitting = bisect_right(range(positions), limit, key=lambda count: self.memory.size_bytes(count, tokens)) - 1
        frames = fitting - self._lm.config.max_delay - given  # Of codes, that could be made.
        seconds = frames * self._codec.config.hop_frames / self._info.sample_rate_hz
        return TooLarge(
            "duration_seconds",
            f"its keys and values take {size / 2**20:.1f} MiB, and there are {limit / 2**20:.1f} MiB for all requests: "
            + (f"ask for at most {math.floor(seconds * 10) / 10:g} s, or " if seconds >= 0.1 else "")
            + "start the server where more memory is free",
        )

    def _count_given(self, frames: int, new: int) -> int:
        """Frames of codes, at the end of a clip of so many frames of audio, that are read before `new` ones are made.

        As many as leave room for these in one window; but where that is little, as many as one window gives the next.
        """
        hop = self._codec.config.hop_frames
        if frames < hop:
            raise InvalidArgument("continuation.source_id", f"{frames} frames of audio; at least {hop} are needed")
        return min(frames // hop, self._window - min(new, stride_of(self._window)))

    def _decode(self, state: MusicGenState) -> FloatArray:
        """Pieces end at the same frames in any company, so that they round to the same samples."""
        if state.decoded < state.given:
            end = min(state.decoded + CHUNK_FRAMES[-1], state.given)
        else:
            end = min(state.decoded + CHUNK_FRAMES[min(state.chunks, len(CHUNK_FRAMES) - 1)], state.codes.count)
        if state.decoded == end or state.codes.frames_ready < end:
            return np.zeros((0, self._info.channels), np.float32)
        block = state.decoder.push(state.codes.frames(state.decoded, end), is_last=end == state.codes.count)
        state.chunks += state.decoded >= state.given
        state.decoded = end
        dropped = min(len(block), state.to_drop)
        state.to_drop -= dropped
        block = block[dropped : dropped + state.frames - state.delivered]
        state.delivered += len(block)
        return block
