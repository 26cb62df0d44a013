"""The settings of the generation service, read from environment variables `DGX_MUSIC_<NAME>`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from service_runtime.settings import Settings

EngineName = Literal["native", "audiocraft"]
DeviceName = Literal["cpu", "cuda"]
DeviceChoice = Literal["auto", "cpu", "cuda"]
PrecisionName = Literal["fp32", "bf16", "int8", "fp8"]
PrecisionChoice = Literal["auto", "fp32", "bf16", "int8", "fp8"]
KvPrecisionChoice = Literal["auto", "bf16", "fp8"]

_DEVICES_PATTERN = re.compile(r"auto|all|cpu(,cpu){0,31}|[0-9]{1,3}(,[0-9]{1,3}){0,31}")

NO_PRELOAD = "none"
"""The value of `preload` that loads no model before its first request."""


class GenerationSettings(Settings):
    """Settings of the generation service."""

    default_model: str | None = None
    """The model for requests that name none. Unset: the smallest installed MusicGen model, else another installed one,
    else `sketch`."""
    model_folders: Annotated[tuple[Path, ...], NoDecode] = ()
    """Folders of models in addition to those under `data_dir`/models and in the Hugging Face cache,
    separated as in PATH in the environment. Each model has its folder's name and takes precedence over one of the same
    name elsewhere."""
    engine: EngineName = "native"
    """The engine that runs MusicGen checkpoints: "native", our own decode loop, or "audiocraft", the reference
    implementation. audiocraft is much slower, yields no audio before the end, and is installed by
    `make setup-audiocraft`."""
    devices: str = "auto"
    """The devices to generate on, with one engine process each. "auto": the first CUDA GPU if there is one, else the
    CPU. "all": every GPU. "0,1": these GPUs, numbered as CUDA_VISIBLE_DEVICES leaves them. "cpu": the CPU, within the
    service's own process; "cpu,cpu": two engine processes on the CPU."""
    precision: PrecisionChoice = "auto"
    """The precision of MusicGen's weights. "auto": fp32 on the CPU; on a GPU bf16, or int8 if a step would take more
    than 10 ms to read the weights in bf16, as medium and large do on a GB10. int8 and, on a GPU only, fp8 read half of
    bf16's memory in each step: faster for few requests at a time, and slightly less exact."""
    kv_precision: KvPrecisionChoice = "auto"
    """The precision of the KV cache on a GPU. "auto": bf16, or fp32 if the weights are. fp8 halves the memory of each
    request, and is slightly less exact. On the CPU the KV cache is in fp32, or in 8 bits if the weights are."""
    gpu_memory_fraction: float = Field(default=0.9, gt=0, le=1)
    """The share of the GPU's free memory, as it is when a model is loaded, that the model and its requests may use."""
    preload: str | None = None
    """The model that each engine loads and warms up before it accepts requests. Unset: the default model on a GPU, none
    on the CPU. "none": each model is loaded by its first request."""
    max_batch_size: int | None = Field(default=None, ge=1, le=256)
    """The maximum number of requests in the batch of each engine. Unset: 8 on the CPU; on a GPU 16, from 20 GB of
    memory on 32, from 40 GB 64, from 80 GB 128. On a GPU, one that follows several prompts at a time takes the places
    of 2 or 3."""
    max_waiting: int = Field(default=256, ge=0)
    """The maximum number of requests waiting for the batch of each engine; further ones fail with
    RESOURCE_EXHAUSTED."""
    buffer_seconds: float = Field(default=8.0, gt=0)
    """Seconds of audio that a request is generated ahead of its reader before it is paused."""
    stall_seconds: float = Field(default=60.0, gt=0)
    """A paused request is cancelled if its reader reads nothing for this long."""
    worker_slots: int | None = Field(default=None, ge=1)
    """The maximum number of jobs claimed from storage at the same time. Unset: as many as the engines have places in
    their batches."""
    lease_seconds: float = Field(default=30.0, ge=1, le=3600)
    """How long a claim is valid without renewal. After a crash, another worker gets the job this much later."""
    renew_interval_seconds: float = Field(default=0.5, gt=0)
    """How often the lease is renewed and progress is reported, and so how soon a cancelled job stops."""
    job_seconds: float = Field(default=6 * 3600.0, gt=0)
    """The maximum time of one job, from its first audio to its file."""

    @field_validator("devices")
    @classmethod
    def _check_devices(cls, devices: str) -> str:
        devices = devices.replace(" ", "").lower()
        numbers = devices.split(",") if devices[:1].isdecimal() else []
        if not _DEVICES_PATTERN.fullmatch(devices) or len(set(numbers)) < len(numbers):
            raise ValueError('use auto, all, cpu, cpu,cpu, or the numbers of GPUs, each once, e.g. "0" or "0,1"')
        return devices

    @field_validator("model_folders", mode="before")
    @classmethod
    def _split_paths(cls, value: object) -> object:
        return [path for path in value.split(os.pathsep) if path] if isinstance(value, str) else value
