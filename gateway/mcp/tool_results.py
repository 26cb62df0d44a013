"""What the tools return about generations and models, as structured content."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from pydantic import BaseModel, Field

from dgx_music.client.async_generation import AsyncGeneration
from dgx_music.generation.v1.generation_pb2 import Capability, Model

Locate = Callable[[str], str]
"""Turns a path relative to the server's data directory into one that can be opened here, if it can."""


class GenerationResult(BaseModel):
    """A generation and its result. What is not known yet, or was not asked for, is null."""

    id: str
    state: str = Field(description="pending, processing, completed, failed or cancelled")
    prompt: str
    model: str
    duration_seconds: float
    seed: int = Field(description="The same seed, model, prompt and duration give the same music.")
    progress: float = Field(description="Fraction of the audio that has been generated, 0 to 1")
    file: str | None = Field(description="Path of the finished audio file")
    sample_rate_hz: int
    channels: int
    loudness_lufs: float | None = Field(description="Integrated loudness")
    true_peak_dbtp: float | None
    tempo_bpm: float | None
    key: str | None = Field(description="For example: A minor")
    rating: int | None = Field(description="The user's rating, 1 to 5")
    error: str | None = Field(description="Why it failed")
    created_at: datetime

    @classmethod
    def of(cls, generation: AsyncGeneration, locate: Locate) -> GenerationResult:
        """Returns what the server last reported of the generation."""
        return cls(
            id=generation.id,
            state=generation.state,
            prompt=generation.prompt,
            model=generation.model,
            duration_seconds=generation.duration,
            seed=generation.seed,
            progress=generation.progress,
            file=locate(generation.file_path) if generation.file_path else None,
            sample_rate_hz=generation.sample_rate,
            channels=generation.channels,
            loudness_lufs=generation.loudness,
            true_peak_dbtp=generation.true_peak,
            tempo_bpm=generation.tempo,
            key=generation.key,
            rating=generation.rating,
            error=generation.error,
            created_at=generation.created_at,
        )


class GenerationList(BaseModel):
    """Generations, newest first."""

    generations: list[GenerationResult]


class ModelResult(BaseModel):
    """A model."""

    name: str
    description: str
    license: str
    max_duration_seconds: float
    is_default: bool
    capabilities: list[str] = Field(description="What it can do besides generating from a prompt")
    problem: str | None = Field(description="Why it can't be used")

    @classmethod
    def of(cls, model: Model) -> ModelResult:
        """Returns what is known about a model."""
        return cls(
            name=model.name,
            description=model.description,
            license=model.license,
            max_duration_seconds=model.max_duration_seconds,
            is_default=model.is_default,
            capabilities=[Capability.Name(value).removeprefix("CAPABILITY_").lower() for value in model.capabilities],
            problem=model.problem or None,
        )


class ModelList(BaseModel):
    """Models, the default one first."""

    models: list[ModelResult]
