"""Stable Audio 3, as `StableAudio3Pipeline` of diffusers 0.42.1 runs it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from generation_service.models.base import GenerationParameters
from generation_service.models.diffusion.denoiser import Denoiser, Denoising, guide_linearly

MAX_TOKENS = 256
"""The most tokens of a prompt that the pipeline reads."""
LOG_SNR_MIN, LOG_SNR_MAX = -6.2, 2.0
"""The range of the noise schedule that the model was distilled for: the pipeline's defaults."""


class StableAudio3(Denoiser):
    """Implements `Denoiser`. The distilled checkpoint draws new noise in each step, from the request's generator."""

    clips = True

    def begin(self, parameters: GenerationParameters) -> Denoising:
        from diffusers.pipelines.stable_audio_3.pipeline_stable_audio_3 import logsnr_sigma_schedule

        pipeline, device = self._pipeline, self._device
        seconds = self._seconds(parameters)
        length = pipeline.encode_duration(seconds, device, 1, 1)
        texts = [parameters.prompt]
        if parameters.guidance_scale > 1:
            texts.insert(0, parameters.negative_prompt)
        encoded = [pipeline.prepare_cross_attention(*pipeline.encode_prompt(text, device, 1), length) for text in texts]
        latents = math.ceil(seconds * self._facts.sample_rate_hz / self._facts.hop_frames)
        channels = pipeline.vae.config.latent_dim
        scheduler, generator = self._new_scheduler(), self._generator(parameters)
        sigmas = logsnr_sigma_schedule(self._steps(parameters), LOG_SNR_MIN, LOG_SNR_MAX)
        scheduler.set_timesteps(sigmas=sigmas, device=device)
        return Denoising(
            latents=pipeline.prepare_latents(1, channels, latents, torch.float32, device, generator),
            scheduler=scheduler,
            generator=generator,
            guidance_scale=parameters.guidance_scale,
            conditions={
                "encoder_hidden_states": torch.cat([context for context, _ in encoded]),
                "encoder_attention_mask": torch.cat([mask for _, mask in encoded]),
                "global_hidden_states": torch.cat([length] * len(texts)),
            },
            metadata=self._ignored(prompt=(parameters.prompt, min(pipeline.tokenizer.model_max_length, MAX_TOKENS))),
        )

    def audio_latents(self, denoising: Denoising) -> Tensor:
        return denoising.latents

    def tokens(self, denoising: Denoising) -> int:
        return int(denoising.latents.shape[-1])

    def _predict(self, latents: Tensor, timesteps: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        output: Tensor = self._pipeline.transformer(latents, timesteps, return_dict=False, **conditions)[0]
        return output

    def _guide(self, denoising: Denoising, output: Tensor) -> Tensor:
        return guide_linearly(output, denoising.guidance_scale)
