"""MAGNeT behind the engine's `Model` interface: many iterations without audio, then all of it, chunk by chunk."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from dgx_music.errors import InvalidArgument, ServiceError
from generation_service.models.base import FloatArray, GenerationParameters, MetadataValue, ModelInfo, Section
from generation_service.models.device_errors import is_fatal
from generation_service.models.execution import ModelExecution
from generation_service.models.magnet.masked_decoding import MaskedCodes, MaskedDecoder
from generation_service.models.musicgen.clip_encoder import ClipEncoder
from generation_service.models.musicgen.codec.chunk_decoder import CHUNK_FRAMES, ChunkDecoder, DecoderStream
from generation_service.models.musicgen.codec.encodec import Encodec
from generation_service.models.musicgen.conditioners.t5_conditioner import TextConditioner

MIN_PROMPT_SHARE = 0.1
"""The share of a segment that the clip to continue has at least, unless it is shorter."""
MAX_STEP_SECONDS = 1.0
"""How long a step goes on with further states. On a CPU, one iteration may take longer; on a GPU, there is time for a
hundred."""


@dataclass(slots=True, eq=False)
class MagnetState:
    """One request: its codes so far, and its stream in the chunk decoder."""

    frames: int
    """Audio frames to deliver in all."""
    codes: MaskedCodes
    stream: DecoderStream
    total_steps: int
    """The iterations for all codes."""
    frames_to_drop: int = 0
    """Audio frames of the continued clip that are still to be dropped."""
    frames_delivered: int = 0
    """Audio frames delivered so far."""
    code_frames_submitted: int = 0
    """Frames of codes passed to the chunk decoder so far."""
    last_turn: int = 0
    """The last step that ran an iteration of it."""
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)
    sections: Sequence[Section] = ()

    @property
    def progress(self) -> float:
        """The fraction of the work that is done. Decoding the audio counts as one more iteration."""
        return (self.codes.steps + self.frames_delivered / self.frames) / (self.total_steps + 1)


class Magnet:
    """Implements `generation_service.models.base.Model` on any device. Built by `magnet_loader.load_magnet`.

    The model generates segments of a fixed length. A shorter request gets the beginning of one.
    """

    def __init__(
        self,
        info: ModelInfo,
        masked: MaskedDecoder,
        conditioner: TextConditioner,
        codec: Encodec,
        decoder: ChunkDecoder,
        execution: ModelExecution,
    ) -> None:
        self._info = info
        self._masked = masked
        self._conditioner = conditioner
        self._hop = codec.config.hop_frames
        self._clips = ClipEncoder(codec)
        self._decoder = decoder
        self._execution = execution
        self._segment = int(masked.config.lm.max_duration_seconds * codec.config.frame_rate_hz)
        self._min_prompt = int(MIN_PROMPT_SHARE * self._segment)
        self._turn = 0
        self._no_audio = np.zeros((0, info.channels), np.float32)

    @property
    def info(self) -> ModelInfo:
        return self._info

    def execution(self) -> ModelExecution:
        """How the model runs."""
        return self._execution

    @property
    def prompt_batch_size(self) -> int:
        return self._conditioner.prompt_batch_size

    def encode_prompts(self, requests: Sequence[GenerationParameters]) -> None:
        """Encodes texts and clips for a later `prefill`. Any thread can call it. Raises what `prefill` would raise."""
        texts = [text for parameters in requests for text in (parameters.prompt, parameters.negative_prompt)]
        self._conditioner.encode_prompts(texts)
        for parameters in requests:
            if (clip := self._select_clip(parameters)) is not None:
                self._clips.encode(clip)

    def prefill(self, parameters: GenerationParameters) -> MagnetState:
        """Encodes what `encode_prompts` has not.

        Raises InvalidArgument if the duration is too long, or the clip too short or without room in the segment.
        """
        new, limit = self._new_code_frames(parameters), self._segment * self._hop
        if new > self._segment:
            problem = f"{parameters.frames} frames; this model generates segments of {limit}"
            raise InvalidArgument("duration_seconds", problem)
        clip = self._select_clip(parameters)
        prompt = None if clip is None else self._clips.encode(clip)
        prompt_frames = 0 if prompt is None else prompt.shape[1]
        # audiocraft generates as many whole spans as fit into the segment. A few frames more are within one more.
        span = self._masked.config.span_len
        needed = max(prompt_frames + new, self._segment // span * span)
        text, negative = map(self._conditioner.encode, (parameters.prompt, parameters.negative_prompt))
        codes = self._masked.begin(parameters, text, negative, needed, prompt)
        return MagnetState(
            frames=parameters.frames,
            codes=codes,
            stream=self._decoder.open(),
            total_steps=self._masked.config.total_steps,
            frames_to_drop=prompt_frames * self._hop - parameters.kept_prompt_frames,
        )

    def step(self, states: Sequence[MagnetState]) -> list[FloatArray | ServiceError]:
        """Runs one iteration of each state, or of as many as there is time for; the next step goes on with the others.

        While there are states with all their codes, it decodes a chunk of each of these instead, since their listeners
        have waited for long. A state whose logits are not finite fails alone.
        """
        decoding = [state for state in states if state.codes.is_done]
        for state in decoding:
            self._submit_chunk(state)
        for state in decoding:
            self._decoder.wait(state.stream)
        if not decoding:
            self._advance(states)
        return [self._take_audio(state) for state in states]

    def release(self, state: MagnetState) -> None:
        """Frees the state's stream."""
        self._decoder.close(state.stream)

    def _advance(self, states: Sequence[MagnetState]) -> None:
        """Begins with the state that has waited for the most steps."""
        self._turn += 1
        started_at = time.monotonic()
        for state in sorted(states, key=lambda state: state.last_turn):
            self._masked.advance(state.codes)
            state.last_turn = self._turn
            if time.monotonic() - started_at > MAX_STEP_SECONDS:
                break

    def _submit_chunk(self, state: MagnetState) -> None:
        if state.frames_delivered == state.frames:
            return
        codes, first = state.codes.codes, state.code_frames_submitted
        end = min(first + CHUNK_FRAMES[-1], codes.shape[1])
        self._decoder.submit(
            state.stream, codes[:, first:end].cpu(), is_last=end == codes.shape[1], is_first=first == 0
        )
        state.code_frames_submitted = end

    def _take_audio(self, state: MagnetState) -> FloatArray | ServiceError:
        """The audio that is ready, without that of the clip and what the segment has too much; or why there is
        none."""
        if not state.codes.is_finite:
            return self._not_finite_error(state)
        try:
            block = self._decoder.take(state.stream)
        except Exception as error:
            if is_fatal(error):
                raise
            return self._codec_error(state, error)
        if not len(block):
            return self._no_audio
        dropped = min(len(block), state.frames_to_drop)
        state.frames_to_drop -= dropped
        block = block[dropped : dropped + state.frames - state.frames_delivered]
        state.frames_delivered += len(block)
        return block

    def _not_finite_error(self, state: MagnetState) -> ServiceError:
        return ServiceError(
            f"model {self._info.name!r} computed logits that are not finite in iteration {state.codes.steps}, for the "
            f"seed {state.codes.parameters.seed}; retry, or set DGX_MUSIC_PRECISION to fp32",
            reason="MODEL_OUTPUT",
        )

    def _codec_error(self, state: MagnetState, error: Exception) -> ServiceError:
        problem = " ".join(f"{type(error).__name__}: {error}".split())
        failure = ServiceError(
            f"model {self._info.name!r} failed to decode audio after {state.frames_delivered} frames: {problem}",
            reason="MODEL_FAILED",
        )
        failure.__cause__ = error
        return failure

    def _new_code_frames(self, parameters: GenerationParameters) -> int:
        """Frames of codes to generate: those of the audio that is not decoded from the clip."""
        return max(1, math.ceil((parameters.frames - parameters.kept_prompt_frames) / self._hop))

    def _select_clip(self, parameters: GenerationParameters) -> FloatArray | None:
        """The end of the clip that is continued: a whole number of frames of codes, and as many as the segment has room
        for beside the new ones."""
        clip = parameters.prompt_audio
        if clip is None:
            return None
        if len(clip) < self._hop:
            problem = f"it has {len(clip)} frames of audio; at least {self._hop} are needed to continue it"
            raise InvalidArgument("continuation.source_id", problem)
        available = len(clip) // self._hop
        room = self._segment - self._new_code_frames(parameters)
        least = min(available, self._min_prompt)
        if room < least:
            seconds = (self._segment - least) * self._hop / self._info.sample_rate_hz
            raise InvalidArgument(
                "duration_seconds",
                f"the model {self._info.name!r} generates segments of a fixed length, in which the end of the "
                f"continued audio has to fit as well; request at most {math.floor(seconds * 10) / 10:g} s",
            )
        return clip[-min(available, room) * self._hop :]
