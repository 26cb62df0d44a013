"""Decodes final latents to audio, a piece at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from generation_service.models.base import FloatArray
from generation_service.models.diffusion.pipeline_families import PipelineFacts

PIECE_SECONDS = 6.0
"""Audio decoded at once: less than a reader's buffer, and enough that the latents around it cost little."""


class LatentDecoder:
    """Runs an autoencoder's decoder on pieces of latents.

    The decoders have no state and see only so far: with `context_latents` more on each side, a piece is decoded to what
    it is in one decoding of everything.
    """

    def __init__(self, vae: Any, facts: PipelineFacts, piece_seconds: float = PIECE_SECONDS) -> None:
        self._vae = vae
        self._facts = facts
        parameter = next(vae.parameters())
        self._device, self._dtype = parameter.device, parameter.dtype
        self._piece = max(1, round(piece_seconds * facts.sample_rate_hz / facts.hop_frames))

    @property
    def hop_frames(self) -> int:
        """Audio frames per latent."""
        return self._facts.hop_frames

    def count_pieces(self, latents: int) -> int:
        """Returns in how many pieces so many latents are decoded."""
        return -(-latents // self._piece)

    def decode(self, latents: Tensor, piece: int) -> FloatArray:
        """Returns the audio of a piece, float32 [n, channels]. `latents` are [1, channels, latents]."""
        total, context = latents.shape[-1], self._facts.context_latents
        start, end = piece * self._piece, min((piece + 1) * self._piece, total)
        first, last = max(0, start - context), min(total, end + context)
        window = latents[..., first:last].to(self._device, self._dtype)
        audio = self._vae.decode(window).sample[0]  # [channels, frames]
        hop = self._facts.hop_frames
        audio = audio[:, (start - first) * hop : (end - first) * hop]
        block: FloatArray = audio.T.to("cpu", torch.float32).contiguous().numpy()
        return block
