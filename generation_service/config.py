"""The settings of the generation service, read from environment variables `DGX_MUSIC_<NAME>`."""

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
    """The model for requests that name none. Unset: the smallest installed MusicGen model, else `sketch`."""
    model_folders: Annotated[tuple[Path, ...], NoDecode] = ()
    """Folders of MusicGen checkpoints in addition to those under `data_dir`/models and in the Hugging Face cache,
    separated as in PATH in the environment. Each model has its folder's name and takes precedence over one of the same
    name elsewhere."""
    engine: EngineName = "native"
    """The engine that runs MusicGen checkpoints: "native", our own decode loop, or "audiocraft", the reference
    implementation. audiocraft is much slower, yields no audio before the end, and is installed by
    `make setup-audiocraft`."""
    device: DeviceChoice = "auto"
    """The device that MusicGen runs on. "auto": a CUDA GPU if there is one, else the CPU."""
    precision: PrecisionChoice = "auto"
    """The precision of MusicGen's weights. "auto": bf16 on CUDA, fp32 on the CPU. int8, on the CPU only, is faster and
    slightly less exact."""
    max_batch_size: int = Field(default=8, ge=1, le=256)
    """The maximum number of requests in the batch."""
    max_waiting: int = Field(default=100, ge=0)
    """The maximum number of requests waiting for the batch; further ones fail with RESOURCE_EXHAUSTED."""
    buffer_seconds: float = Field(default=8.0, gt=0)
    """Seconds of audio that a request is generated ahead of its reader before it is paused."""
    stall_seconds: float = Field(default=60.0, gt=0)
    """A paused request is cancelled if its reader reads nothing for this long."""
    worker_slots: int | None = Field(default=None, ge=1)
    """The maximum number of jobs claimed from storage at the same time. Unset: `max_batch_size`."""
    lease_seconds: float = Field(default=30.0, ge=1, le=3600)
    """How long a claim is valid without renewal. After a crash, another worker gets the job this much later."""
    renew_interval_seconds: float = Field(default=0.5, gt=0)
    """How often the lease is renewed and progress is reported, and so how soon a cancelled job stops."""
    job_seconds: float = Field(default=6 * 3600.0, gt=0)
    """The maximum time of one job, from its first audio to its file."""

    @field_validator("model_folders", mode="before")
    @classmethod
    def _split_paths(cls, value: object) -> object:
        return [path for path in value.split(os.pathsep) if path] if isinstance(value, str) else value
