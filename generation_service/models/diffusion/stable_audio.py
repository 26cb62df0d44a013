"""Stable Audio Open, as `StableAudioPipeline` of diffusers 0.42.1 runs it: every piece has the same number of latents,
and its length is a condition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from generation_service.models.base import GenerationParameters
from generation_service.models.diffusion.denoiser import Denoiser, Denoising, guide_linearly
from generation_service.models.diffusion.pipeline_families import PipelineFacts


class StableAudio(Denoiser):
    """Implements `Denoiser`."""

    def __init__(self, pipeline: Any, facts: PipelineFacts, device: torch.device) -> None:
        from diffusers.models.embeddings import get_1d_rotary_pos_embed

        super().__init__(pipeline, facts, device)
        self._latents = int(pipeline.transformer.config.sample_size)
        cos, sin = get_1d_rotary_pos_embed(
            pipeline.rotary_embed_dim, self._latents + 1, use_real=True, repeat_interleave_real=False
        )
        self._rotary = (cos.to(device), sin.to(device))

    def begin(self, parameters: GenerationParameters) -> Denoising:
        pipeline, device = self._pipeline, self._device
        is_guided = parameters.guidance_scale > 1
        negative = parameters.negative_prompt or None
        has_negative = is_guided and negative is not None
        text = pipeline.encode_prompt(parameters.prompt, device, is_guided, negative)
        start, end = pipeline.encode_duration(0.0, self._seconds(parameters), device, has_negative, 1)
        texts, lengths = torch.cat([text, start, end], dim=1), torch.cat([start, end], dim=2)
        if is_guided and not has_negative:
            texts = torch.cat([torch.zeros_like(texts), texts])
            lengths = torch.cat([lengths, lengths])
        scheduler, generator = self._new_scheduler(), self._generator(parameters)
        scheduler.set_timesteps(self._steps(parameters), device=device)
        channels = pipeline.transformer.config.in_channels
        return Denoising(
            latents=pipeline.prepare_latents(1, channels, self._latents, torch.float32, device, generator),
            scheduler=scheduler,
            generator=generator,
            guidance_scale=parameters.guidance_scale,
            conditions={"encoder_hidden_states": texts, "global_hidden_states": lengths},
            metadata=self._ignored(prompt=(parameters.prompt, pipeline.tokenizer.model_max_length)),
        )

    def audio_latents(self, denoising: Denoising) -> Tensor:
        return denoising.latents

    def tokens(self, denoising: Denoising) -> int:
        return self._latents + 1

    def _predict(self, latents: Tensor, timesteps: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        output: Tensor = self._pipeline.transformer(
            latents, timesteps, rotary_embedding=self._rotary, return_dict=False, **conditions
        )[0]
        return output

    def _guide(self, denoising: Denoising, output: Tensor) -> Tensor:
        return guide_linearly(output, denoising.guidance_scale)
