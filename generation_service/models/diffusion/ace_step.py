"""ACE-Step 1.5, as `AceStepPipeline` of diffusers 0.42.1 runs it for text-to-music."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from generation_service.models.base import GenerationParameters
from generation_service.models.diffusion.denoiser import Denoiser, Denoising

SHIFT = 3.0
"""How far the schedule is shifted towards noise: the pipeline's default."""
MAX_TEXT_TOKENS, MAX_LYRICS_TOKENS = 256, 2048
"""The most tokens of the prompt, with what is written around it, and of the lyrics that the pipeline reads."""
TIMBRE_SECONDS = 30
"""The length of the reference audio, here silence."""


class AceStep(Denoiser):
    """Implements `Denoiser`.

    Guidance is adaptive projected guidance (https://arxiv.org/abs/2410.02416) from the learned null condition; a turbo
    checkpoint, in which guidance is distilled, has none.
    """

    peak = 10 ** (-1 / 20)

    def begin(self, parameters: GenerationParameters) -> Denoising:
        from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer

        pipeline, device = self._pipeline, self._device
        seconds = self._seconds(parameters)
        texts = pipeline._format_prompt(parameters.prompt, parameters.lyrics, audio_duration=seconds)
        text, text_mask, lyrics, lyrics_mask = pipeline.encode_prompt(
            parameters.prompt, parameters.lyrics, device, audio_duration=seconds
        )
        length = math.ceil(seconds * pipeline.latents_per_second)
        timbre_length = math.ceil(TIMBRE_SECONDS * pipeline.latents_per_second)
        silence = pipeline.condition_encoder.silence_latent[:, :timbre_length]
        encoded, _ = pipeline.condition_encoder(
            text_hidden_states=text,
            text_attention_mask=text_mask,
            lyric_hidden_states=lyrics,
            lyric_attention_mask=lyrics_mask,
            refer_audio_acoustic_hidden_states_packed=silence.to(device, self._dtype),
            refer_audio_order_mask=torch.zeros(1, dtype=torch.long, device=device),
        )
        source, _ = pipeline.prepare_src_latents(device=device, dtype=self._dtype, latent_length=length)
        context = torch.cat([source, torch.ones_like(source)], dim=-1)
        is_guided = parameters.guidance_scale > 1 and not pipeline.is_turbo
        if is_guided:
            encoded = torch.cat([encoded, pipeline.condition_encoder.null_condition_emb.to(encoded).expand_as(encoded)])
            context = torch.cat([context, context])
        generator = self._generator(parameters)
        latents = pipeline.prepare_latents(1, length / pipeline.latents_per_second, torch.float32, device, generator)
        sigmas = pipeline._get_timestep_schedule(self._steps(parameters), SHIFT, device, torch.float32)
        scheduler = self._new_scheduler()
        scheduler.set_timesteps(sigmas=sigmas.tolist(), device=device)
        return Denoising(
            latents=latents,
            scheduler=scheduler,
            generator=generator,
            guidance_scale=parameters.guidance_scale,
            conditions={"encoder_hidden_states": encoded, "context_latents": context},
            metadata=self._ignored(prompt=(texts[0], MAX_TEXT_TOKENS), lyrics=(texts[1], MAX_LYRICS_TOKENS)),
            momentum=MomentumBuffer(momentum=-0.75) if is_guided else None,
        )

    def audio_latents(self, denoising: Denoising) -> Tensor:
        return denoising.latents.transpose(1, 2)

    def tokens(self, denoising: Denoising) -> int:
        return int(denoising.latents.shape[1])

    def _predict(self, latents: Tensor, timesteps: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        timesteps = timesteps.to(self._dtype)
        output: Tensor = self._pipeline.transformer(
            latents, timestep=timesteps, timestep_r=timesteps, return_dict=False, **conditions
        )[0]
        return output

    def _guide(self, denoising: Denoising, output: Tensor) -> Tensor:
        from diffusers.guiders.adaptive_projected_guidance import normalized_guidance

        conditional, unconditional = output.chunk(2)
        guided: Tensor = normalized_guidance(
            pred_cond=conditional,
            pred_uncond=unconditional,
            guidance_scale=denoising.guidance_scale - 1.0,
            momentum_buffer=denoising.momentum,
            eta=0.0,
            norm_threshold=2.5,
            use_original_formulation=True,
            norm_dim=(1,),
        )
        return guided
