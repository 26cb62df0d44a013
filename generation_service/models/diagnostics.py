"""What this machine has for making music, and what to do about what is missing."""

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
from generation_service.models.discovery import PUBLISHED, installed_models
from service_runtime.optional_deps import install_extra_command, pip_install_command

INSTALL = install_extra_command("musicgen")
LIBRARIES = ("transformers", "sentencepiece", "safetensors", "huggingface_hub")
"""What MusicGen needs beside torch."""
GET_TEXT_ENCODER = 'hf download t5-base --exclude "*.bin" "*.h5" "*.msgpack" "*.ot"'
"""Its weights are there in five formats."""
NVIDIA_DEVICE = Path("/dev/nvidiactl")
"""There where the driver of an NVIDIA GPU runs."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    name: str
    state: Literal["ok", "missing", "broken"]
    """Missing: music can be made without it. Broken: set up, but it does not work."""
    found: str
    advice: str = ""
    """What to do; empty where it is ok."""


def diagnose(settings: GenerationSettings) -> Iterator[Finding]:
    """Looks at Python, torch, the device, libraries and models. Imports torch, which takes seconds."""
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.machine()} {platform.system()}")
    yield from _torch(settings)
    for library in LIBRARIES:
        version = _version(library)
        yield Finding(library, "ok" if version else "missing", version or "not installed", "" if version else INSTALL)
    yield from _engine(settings)
    yield from _models(settings)


def _engine(settings: GenerationSettings) -> Iterator[Finding]:
    version = _version("audiocraft")
    is_needed = settings.engine == "audiocraft"
    yield Finding(
        "audiocraft",
        "ok" if version else "broken" if is_needed else "missing",
        version or f"not installed; {'' if is_needed else 'only '}DGX_MUSIC_ENGINE=audiocraft needs it",
        "" if version else "make setup-audiocraft" + (", or DGX_MUSIC_ENGINE=native" if is_needed else ""),
    )
    if not is_needed:
        yield Finding("engine", "ok", "native: needs torch, transformers and a model; streams while it generates")
    elif settings.precision != "auto":
        found = f"audiocraft, with DGX_MUSIC_PRECISION={settings.precision}, but it chooses its own"
        yield Finding("engine", "broken", found, "unset DGX_MUSIC_PRECISION, or DGX_MUSIC_ENGINE=native")
    else:
        found = "audiocraft, the reference: one request at a time, sound at the end only, 30 s at most"
        yield Finding("engine", "ok", found)


def _torch(settings: GenerationSettings) -> Iterator[Finding]:
    try:
        import torch
    except ImportError as error:
        missing = error.name == "torch"
        found = "not installed; MusicGen needs it" if missing else f"can't be imported: {error}"
        yield Finding("torch", "missing" if missing else "broken", found, INSTALL)
        return
    built_for = f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU only"
    yield Finding("torch", "ok", f"{torch.__version__}, built for {built_for}")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            yield _gpu(index)
        return
    cpu = f"CPU, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}, {_memory_bytes() / 2**30:.1f} GiB"
    advice = ""
    if NVIDIA_DEVICE.exists() and not torch.version.cuda:
        again = pip_install_command("--force-reinstall", "torch==2.13.0")
        advice = f"this torch can't use the NVIDIA GPU here: {again} from PyPI"
    elif NVIDIA_DEVICE.exists():
        advice = (
            f"torch does not find the NVIDIA GPU here: its driver has to know CUDA {torch.version.cuda}, nvidia-smi"
        )
    elif settings.device == "cuda":
        advice = "DGX_MUSIC_DEVICE is cuda, but there is no NVIDIA driver here: install it, or unset DGX_MUSIC_DEVICE"
    state: Literal["ok", "missing", "broken"] = "missing" if advice else "ok"
    yield Finding("device", "broken" if settings.device == "cuda" else state, cpu, advice)


def _gpu(index: int) -> Finding:
    import torch

    gpu = torch.cuda.get_device_properties(index)
    arch = f"sm_{gpu.major}{gpu.minor}"
    found = f"{gpu.name}, {gpu.total_memory / 2**30:.1f} GiB, {gpu.multi_processor_count} SMs, {arch}"
    try:
        torch.ones(1, device=f"cuda:{index}").add_(1).item()
    except RuntimeError as error:
        problem = str(error).partition("\n")[0]
        built_for = ", ".join(torch.cuda.get_arch_list())
        advice = f"torch is built for {built_for}: install one for {arch}, or set DGX_MUSIC_DEVICE=cpu"
        return Finding("device", "broken", f"{found}: {problem}", advice)
    return Finding("device", "ok", found)


def _models(settings: GenerationSettings) -> Iterator[Finding]:
    try:
        catalog = installed_models(settings)
    except ServiceError as error:
        yield Finding("models", "broken", f"DGX_MUSIC_DEFAULT_MODEL is {settings.default_model}", error.message)
        return
    has_musicgen = len(catalog.names) > 1  # The sketch is always there.
    if not has_musicgen:
        yield Finding("musicgen", "missing", "no model is there", f"dgx-music models pull {PUBLISHED[0]}")
    yield _text_encoder(has_musicgen)
    for name in catalog.names:
        default = " (default)" if name == catalog.default_name else ""
        try:
            info = catalog.get(name).describe()
        except ServiceError as error:
            yield Finding("model", "broken", f"{name}{default} can't be used", error.message)
        else:
            yield Finding("model", "ok", f"{name}{default}: {info.description.rstrip('.')}, {info.licence}")


def _text_encoder(is_needed: bool) -> Finding:
    try:
        from huggingface_hub.constants import HF_HUB_CACHE
    except ImportError:
        return Finding("hub cache", "missing", "huggingface_hub is not installed", INSTALL)
    if any(Path(HF_HUB_CACHE).glob("models--t5-base/snapshots/*/config.json")):
        return Finding("hub cache", "ok", f"{HF_HUB_CACHE} has the text encoder t5-base")
    found = f"{HF_HUB_CACHE} has no text encoder t5-base, by which MusicGen reads prompts"
    return Finding("hub cache", "broken" if is_needed else "missing", found, GET_TEXT_ENCODER)


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def _memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
