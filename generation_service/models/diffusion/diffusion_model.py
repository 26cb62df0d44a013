"""A diffusion pipeline behind the engine's `Model` interface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from dgx_music.errors import InvalidArgument, ServiceError
from generation_service.models.base import FloatArray, GenerationParameters, MetadataValue, ModelInfo, Section
from generation_service.models.diffusion.denoiser import Denoiser, Denoising
from generation_service.models.diffusion.latent_decoder import LatentDecoder
from generation_service.models.execution import ModelExecution

TOKENS_PER_CALL = {"cpu": 2048, "cuda": 65536}
"""How much one call of the transformer works on, rows times length: as much as keeps the device busy, and little enough
that nobody waits long for a turn, or for a cancelled request."""


@dataclass(eq=False, slots=True)
class DiffusionState:
    """One request: its latents, and then its audio."""

    frames: int
    """Audio frames to deliver in all."""
    denoising: Denoising
    pieces: int
    """In how many pieces its audio is decoded."""
    metadata: Mapping[str, MetadataValue]
    sections: Sequence[Section] = ()
    last_turn: int = 0
    """The turn in which it was last served."""
    pieces_done: int = 0
    blocks: list[FloatArray] = field(default_factory=list)
    """Audio that is decoded but not delivered."""
    frames_decoded: int = 0
    failure: ServiceError | None = None

    @property
    def progress(self) -> float:
        """The fraction of its steps and pieces that is done."""
        return (self.denoising.steps_done + self.pieces_done) / (self.denoising.steps + self.pieces)

    @property
    def is_working(self) -> bool:
        """Whether there is anything left to denoise or to decode."""
        return self.failure is None and self.pieces_done < self.pieces


class DiffusionModel:
    """Implements `generation_service.models.base.Model`. Built by `pipeline_loader.load_pipeline`.

    A `step` is one turn on the device: one denoising step for those requests that can share a batch, or one piece of
    one request's audio. The request that has waited longest decides which. Nothing is done ahead, so a request that is
    cancelled costs nothing from its next turn on.
    """

    def __init__(
        self,
        info: ModelInfo,
        denoiser: Denoiser,
        decoder: LatentDecoder,
        execution: ModelExecution,
        device: torch.device,
    ) -> None:
        self._info = info
        self._denoiser = denoiser
        self._decoder = decoder
        self._execution = execution
        self._tokens_per_call = TOKENS_PER_CALL[device.type]
        self._device = device
        self._turn = 0
        self._last_event: torch.cuda.Event | None = None
        self._no_audio = np.zeros((0, info.channels), np.float32)

    @property
    def info(self) -> ModelInfo:
        return self._info

    def execution(self) -> ModelExecution:
        """How the model runs."""
        return self._execution

    @torch.no_grad()
    def prefill(self, parameters: GenerationParameters) -> DiffusionState:
        """Encodes the texts and draws the noise. Raises InvalidArgument if the duration is too long."""
        limit = round(self._info.max_duration_seconds * self._info.sample_rate_hz)
        if parameters.frames > limit:
            problem = f"{parameters.frames} frames; this model generates at most {limit}"
            raise InvalidArgument("duration_seconds", problem)
        denoising = self._denoiser.begin(parameters)
        return DiffusionState(
            frames=parameters.frames,
            denoising=denoising,
            pieces=self._decoder.count_pieces(self._count_latents(parameters.frames, denoising)),
            metadata={"denoising_steps": denoising.steps, **denoising.metadata},
            last_turn=self._turn,
        )

    @torch.no_grad()
    def step(self, states: Sequence[DiffusionState]) -> list[FloatArray | ServiceError]:
        """Does one turn, and returns for each state its next piece of audio, [n, channels], or none.

        A state whose latents or audio are not finite fails alone.
        """
        self._turn += 1
        waiting = sorted((state for state in states if state.is_working), key=lambda state: state.last_turn)
        if waiting:
            first = waiting[0]
            if first.denoising.is_finished:
                first.last_turn = self._turn
                self._decode_piece(first)
            else:
                self._denoise(self._choose_batch(waiting))
        return [state.failure or self._take_audio(state) for state in states]

    def release(self, state: DiffusionState) -> None:
        """Frees the latents and the audio."""
        state.blocks.clear()
        del state.denoising

    def _choose_batch(self, waiting: Sequence[DiffusionState]) -> list[DiffusionState]:
        """Returns the first state, and those after it that can share its batch, as far as one call goes."""
        first = waiting[0].denoising
        shapes, tokens = first.shapes, 0
        batch: list[DiffusionState] = []
        for state in waiting:
            denoising = state.denoising
            if denoising.is_finished or denoising.shapes != shapes:
                continue
            tokens += denoising.rows * self._denoiser.tokens(denoising)
            if batch and tokens > self._tokens_per_call:
                break
            batch.append(state)
        return batch

    def _denoise(self, batch: Sequence[DiffusionState]) -> None:
        for state in batch:
            state.last_turn = self._turn
        self._denoiser.advance([state.denoising for state in batch])
        if self._device.type == "cuda":  # Launch one turn ahead, but not more: progress and cancellation would lag.
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
            if self._last_event is not None:
                self._last_event.synchronize()
            self._last_event = event

    def _decode_piece(self, state: DiffusionState) -> None:
        latents = self._denoiser.audio_latents(state.denoising)
        block = self._decoder.decode(latents, state.pieces_done)
        if not np.isfinite(block).all():
            state.failure = ServiceError(
                f"model {self._info.name!r} computed audio that is not finite; retry with another seed, or set "
                "DGX_MUSIC_PRECISION to fp32",
                reason="MODEL_OUTPUT",
            )
            return
        if self._denoiser.clips:
            np.clip(block, -1.0, 1.0, out=block)
        state.pieces_done += 1
        state.blocks.append(block)
        if state.pieces_done == state.pieces and self._denoiser.peak is not None:
            peak = max(float(np.abs(each).max()) for each in state.blocks)
            for each in state.blocks:
                each *= self._denoiser.peak / max(peak, 1e-6)

    def _take_audio(self, state: DiffusionState) -> FloatArray:
        is_held = self._denoiser.peak is not None and state.pieces_done < state.pieces  # The peak is not known yet.
        if is_held or not state.blocks:
            return self._no_audio
        block = state.blocks.pop(0)[: state.frames - state.frames_decoded]
        state.frames_decoded += len(block)
        return block

    def _count_latents(self, frames: int, denoising: Denoising) -> int:
        """How many latents are decoded: all that the peak depends on, or else those of the frames."""
        total = int(self._denoiser.audio_latents(denoising).shape[-1])
        hop = self._decoder.hop_frames
        return total if self._denoiser.peak is not None else min(total, -(-frames // hop))
