"""Checks what this machine has for generating music, and advises on what is missing."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from dgx_music.errors import ServiceError
from generation_service.config import GenerationSettings
from generation_service.models.discovery import PUBLISHED, find_installed_models
from service_runtime.optional_deps import install_extra_command, pip_install_command

INSTALL_COMMAND = install_extra_command("musicgen")
LIBRARIES = ("transformers", "sentencepiece", "safetensors", "huggingface_hub")
"""The libraries that MusicGen needs in addition to torch."""
TEXT_ENCODER_COMMAND = 'hf download t5-base --exclude "*.bin" "*.h5" "*.msgpack" "*.ot"'
"""Downloads the text encoder. The repository has the weights in five formats, of which one is needed."""
NVIDIA_DEVICE = Path("/dev/nvidiactl")
"""Exists if the driver of an NVIDIA GPU is running."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    name: str
    state: Literal["ok", "missing", "broken"]
    """missing: optional and not installed. broken: configured or required, but it does not work."""
    found: str
    advice: str = ""
    """What to do; empty if the state is ok."""


def diagnose(settings: GenerationSettings) -> Iterator[Finding]:
    """Checks Python, torch, the device, libraries and models. Imports torch, which takes seconds."""
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.machine()} {platform.system()}")
    yield from _check_torch(settings)
    for library in LIBRARIES:
        version = _installed_version(library)
        yield Finding(
            library, "ok" if version else "missing", version or "not installed", "" if version else INSTALL_COMMAND
        )
    yield from _check_engine(settings)
    yield from _check_models(settings)


def _check_engine(settings: GenerationSettings) -> Iterator[Finding]:
    version = _installed_version("audiocraft")
    is_needed = settings.engine == "audiocraft"
    yield Finding(
        "audiocraft",
        "ok" if version else "broken" if is_needed else "missing",
        version or f"not installed; {'' if is_needed else 'only '}DGX_MUSIC_ENGINE=audiocraft needs it",
        "" if version else "run `make setup-audiocraft`" + (", or set DGX_MUSIC_ENGINE=native" if is_needed else ""),
    )
    if not is_needed:
        yield Finding("engine", "ok", "native: streams audio while it generates; needs torch, transformers and a model")
    elif settings.precision != "auto":
        found = f"audiocraft, with DGX_MUSIC_PRECISION={settings.precision}, but audiocraft chooses its own precision"
        yield Finding("engine", "broken", found, "unset DGX_MUSIC_PRECISION, or set DGX_MUSIC_ENGINE=native")
    else:
        found = "audiocraft, the reference implementation: one request at a time, no audio before the end, at most 30 s"
        yield Finding("engine", "ok", found)


def _check_torch(settings: GenerationSettings) -> Iterator[Finding]:
    try:
        import torch
    except ImportError as error:
        missing = error.name == "torch"
        found = "not installed; MusicGen needs it" if missing else f"can't be imported: {error}"
        yield Finding("torch", "missing" if missing else "broken", found, INSTALL_COMMAND)
        return
    built_for = f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU only"
    yield Finding("torch", "ok", f"{torch.__version__}, built for {built_for}")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            yield _check_gpu(index)
        return
    capability, memory_gib = torch.backends.cpu.get_cpu_capability(), _physical_memory_bytes() / 2**30
    cpu = f"CPU, {os.cpu_count()} cores, {capability}, {memory_gib:.1f} GiB"
    advice = ""
    if NVIDIA_DEVICE.exists() and not torch.version.cuda:
        reinstall = pip_install_command("--force-reinstall", "torch==2.13.0")
        advice = f"this build of torch can't use the NVIDIA GPU; install the one from PyPI: {reinstall}"
    elif NVIDIA_DEVICE.exists():
        advice = (
            "torch does not find the NVIDIA GPU; check with nvidia-smi that its driver supports CUDA "
            f"{torch.version.cuda}"
        )
    elif settings.devices not in ("auto", "cpu"):
        advice = f"DGX_MUSIC_DEVICES is {settings.devices}, but no NVIDIA driver is running; install it, or unset DGX_MUSIC_DEVICES"
    state: Literal["ok", "missing", "broken"] = "missing" if advice else "ok"
    yield Finding("device", "broken" if settings.devices not in ("auto", "cpu") else state, cpu, advice)


def _check_gpu(index: int) -> Finding:
    import torch

    gpu = torch.cuda.get_device_properties(index)
    arch = f"sm_{gpu.major}{gpu.minor}"
    found = f"{gpu.name}, {gpu.total_memory / 2**30:.1f} GiB, {gpu.multi_processor_count} SMs, {arch}"
    try:
        torch.ones(1, device=f"cuda:{index}").add_(1).item()
    except RuntimeError as error:
        problem = str(error).partition("\n")[0]
        built_for = ", ".join(torch.cuda.get_arch_list())
        advice = f"torch is built for {built_for}; install a build for {arch}, or set DGX_MUSIC_DEVICES=cpu"
        return Finding("device", "broken", f"{found}: {problem}", advice)
    return Finding("device", "ok", found)


def _check_models(settings: GenerationSettings) -> Iterator[Finding]:
    try:
        catalog = find_installed_models(settings)
    except ServiceError as error:
        yield Finding("models", "broken", f"DGX_MUSIC_DEFAULT_MODEL is {settings.default_model}", error.message)
        return
    has_musicgen = len(catalog.names) > 1  # `sketch` is always available.
    if not has_musicgen:
        yield Finding("musicgen", "missing", "no model is installed", f"run `dgx-music models pull {PUBLISHED[0]}`")
    yield _check_text_encoder(has_musicgen)
    for name in catalog.names:
        default = " (default)" if name == catalog.default_name else ""
        try:
            info = catalog.get(name).describe()
        except ServiceError as error:
            yield Finding("model", "broken", f"{name}{default} is unusable", error.message)
        else:
            yield Finding("model", "ok", f"{name}{default}: {info.description.rstrip('.')}, {info.licence}")


def _check_text_encoder(is_needed: bool) -> Finding:
    try:
        from huggingface_hub.constants import HF_HUB_CACHE
    except ImportError:
        return Finding("hub cache", "missing", "huggingface_hub is not installed", INSTALL_COMMAND)
    if any(Path(HF_HUB_CACHE).glob("models--t5-base/snapshots/*/config.json")):
        return Finding("hub cache", "ok", f"{HF_HUB_CACHE} contains the text encoder t5-base")
    found = f"{HF_HUB_CACHE} does not contain the text encoder t5-base, which MusicGen needs for prompts"
    return Finding("hub cache", "broken" if is_needed else "missing", found, TEXT_ENCODER_COMMAND)


def _installed_version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def _physical_memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
