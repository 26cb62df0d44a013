"""Denoises the latents of many requests, each at a step of its own, by the modules of a diffusers pipeline.

A pipeline's own `__call__` denoises one batch from start to end: its requests begin together, and a request can neither
join nor leave. So the loop is ours, and all that it does to one request is the pipeline's own: each request has its own
scheduler and generator and gets what the pipeline would give it alone, whatever shares its batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from generation_service.models.base import GenerationParameters, MetadataValue
from generation_service.models.diffusion.pipeline_families import PipelineFacts


@dataclass(eq=False, slots=True)
class Denoising:
    """The latents of one request on their way from noise to music."""

    latents: Tensor
    """[1, …], in float32."""
    scheduler: Any
    generator: torch.Generator
    guidance_scale: float
    conditions: Mapping[str, Tensor]
    """The transformer's further arguments, [rows, …]: one row, or two with classifier-free guidance."""
    momentum: Any = None
    """What guidance remembers from step to step, if it does."""
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)
    steps_done: int = 0

    @property
    def steps(self) -> int:
        """The number of steps in all."""
        return len(self.scheduler.timesteps)

    @property
    def is_finished(self) -> bool:
        return self.steps_done == self.steps

    @property
    def rows(self) -> int:
        """How many rows of a batch it takes: 2 with classifier-free guidance, else 1."""
        return int(next(iter(self.conditions.values())).shape[0])

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Requests can share a batch if these are the same. No transformer masks padding, so none is padded."""
        return tuple(tuple(tensor.shape[1:]) for tensor in (self.latents, *self.conditions.values()))


class Denoiser(ABC):
    """What the families have in common. `pipeline` is a loaded pipeline of diffusers."""

    peak: float | None = None
    """The peak amplitude to which the family's pipeline scales its audio; None if it does not."""
    clips: bool = False
    """Whether the family's pipeline clips its audio at ±1."""

    def __init__(self, pipeline: Any, facts: PipelineFacts, device: torch.device) -> None:
        self._pipeline = pipeline
        self._facts = facts
        self._device = device
        self._dtype: torch.dtype = pipeline.transformer.dtype

    @abstractmethod
    def begin(self, parameters: GenerationParameters) -> Denoising:
        """Encodes the texts and draws the noise."""

    @abstractmethod
    def audio_latents(self, denoising: Denoising) -> Tensor:
        """Returns the latents as the autoencoder expects them, [1, channels, latents]."""

    @abstractmethod
    def tokens(self, denoising: Denoising) -> int:
        """Returns the length of the sequence that the transformer works on."""

    @abstractmethod
    def _predict(self, latents: Tensor, timesteps: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
        """Runs the transformer on latents [rows, …] in its precision, and timesteps [rows] in float32."""

    @abstractmethod
    def _guide(self, denoising: Denoising, output: Tensor) -> Tensor:
        """Combines the two rows of a request, [2, …], by classifier-free guidance into [1, …]."""

    def advance(self, batch: Sequence[Denoising]) -> None:
        """Does one step for requests of the same shapes, in one call of the transformer."""
        latents, timesteps = [], []
        for each in batch:
            timestep = each.scheduler.timesteps[each.steps_done]
            scaled = each.latents
            if hasattr(each.scheduler, "scale_model_input"):
                scaled = each.scheduler.scale_model_input(scaled, timestep)
            latents += [scaled] * each.rows
            timesteps += [timestep] * each.rows
        output = self._predict(
            torch.cat(latents).to(self._dtype),
            torch.stack(timesteps).to(self._device),
            {name: torch.cat([each.conditions[name] for each in batch]) for name in batch[0].conditions},
        ).float()
        for each, rows in zip(batch, torch.split(output, [each.rows for each in batch]), strict=True):
            guided = rows if each.rows == 1 else self._guide(each, rows)
            timestep = each.scheduler.timesteps[each.steps_done]
            each.latents = each.scheduler.step(
                guided, timestep, each.latents, generator=each.generator, return_dict=False
            )[0]
            each.steps_done += 1

    def rehearse(self, parameters: GenerationParameters) -> None:
        """Does all of a request but for the transformer and the autoencoder, whose shapes are known to fit.

        Raises whatever the modules raise if their configurations, which they interpret as they use them, are wrong.
        """
        denoising = self.begin(parameters)
        if denoising.steps != self._steps(parameters):
            raise ValueError(f"the scheduler plans {denoising.steps} steps instead of {self._steps(parameters)}")
        latents = denoising.latents
        for timestep in denoising.scheduler.timesteps:
            latents = denoising.scheduler.step(
                torch.zeros_like(latents), timestep, latents, generator=denoising.generator, return_dict=False
            )[0]
        if not all(bool(tensor.isfinite().all()) for tensor in (latents, *denoising.conditions.values())):
            raise ValueError("the results are not finite")

    def _ignored(self, **limited: tuple[str, int]) -> dict[str, MetadataValue]:
        """Returns how many tokens are beyond what the text encoder reads, by name; `limited` are texts and limits."""
        counts = {name: len(self._pipeline.tokenizer(text).input_ids) - most for name, (text, most) in limited.items()}
        return {f"{name}_tokens_ignored": count for name, count in counts.items() if count > 0}

    def _steps(self, parameters: GenerationParameters) -> int:
        return parameters.steps or self._facts.default_steps

    def _seconds(self, parameters: GenerationParameters) -> float:
        return parameters.frames / self._facts.sample_rate_hz

    def _new_scheduler(self) -> Any:
        scheduler = self._pipeline.scheduler
        return type(scheduler).from_config(scheduler.config)

    def _generator(self, parameters: GenerationParameters) -> torch.Generator:
        """The first noise is drawn on the CPU: by a seed, it is the same for every device."""
        return torch.Generator("cpu").manual_seed(parameters.seed)


def guide_linearly(output: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance from the first row, without the prompt, to the second, with it."""
    unconditional, conditional = output.chunk(2)
    return unconditional + scale * (conditional - unconditional)
