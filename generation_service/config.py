"""What can be set about generation, from the environment: `DGX_MUSIC_<NAME>`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from service_runtime.settings import Settings

EngineName = Literal["native", "audiocraft"]
DeviceName = Literal["cpu", "cuda"]
DeviceChoice = Literal["auto", "cpu", "cuda"]
PrecisionName = Literal["fp32", "int8", "bf16"]
PrecisionChoice = Literal["auto", "fp32", "int8", "bf16"]


class GenerationSettings(Settings):
    """Settings of the generation service."""

    default_model: str | None = None
    """The model taken where a request names none. Unset: the smallest MusicGen that is there, else the sketch."""
    model_folders: Annotated[tuple[Path, ...], NoDecode] = ()
    """Folders of MusicGen checkpoints besides those under `data_dir`/models and in the Hugging Face cache; in the
    environment separated as in PATH. Each is a model by its folder's name, preferred to one of the same name there."""
    engine: EngineName = "native"
    """What runs MusicGen's checkpoints: our own decode loop, or audiocraft itself, the reference: much slower, without
    sound before the end, installed by `make setup-audiocraft`."""
    device: DeviceChoice = "auto"
    """What MusicGen runs on. "auto": a CUDA GPU where there is one, else the CPU."""
    precision: PrecisionChoice = "auto"
    """How its weights are kept. "auto": bf16 on CUDA, fp32 on the CPU, where int8 is faster and a little less exact."""
    max_batch_size: int = Field(default=8, ge=1, le=256)
    """Requests in the batch at once."""
    max_waiting: int = Field(default=100, ge=0)
    """Requests that may wait for a place in the batch; one more is RESOURCE_EXHAUSTED."""
    buffer_seconds: float = Field(default=8.0, gt=0)
    """Seconds of audio that are made ahead of a request's reader before it is paused."""
    stall_seconds: float = Field(default=60.0, gt=0)
    """A request whose reader has taken nothing for so long while paused is given up."""
    worker_slots: int | None = Field(default=None, ge=1)
    """Jobs claimed from storage at once. Unset: as many as the batch has places."""
    lease_seconds: float = Field(default=30.0, ge=1, le=3600)
    """How long a claimed job is ours without a renewal; after a crash another worker has it this much later."""
    renew_interval_seconds: float = Field(default=0.5, gt=0)
    """How often stage and progress are told, and how soon a cancelled job stops."""
    job_seconds: float = Field(default=6 * 3600.0, gt=0)
    """Longest that one job may take from its first audio to its file."""

    @field_validator("model_folders", mode="before")
    @classmethod
    def _split_paths(cls, value: object) -> object:
        return [path for path in value.split(os.pathsep) if path] if isinstance(value, str) else value
