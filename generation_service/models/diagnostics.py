"""Checks what this machine has for generating music, and advises on what is missing."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from dgx_music.errors import ServiceError
from generation_service.config import GenerationSettings
from generation_service.models.device_diagnostics import check_devices
from generation_service.models.diffusion.diffusers_library import REQUIRED as DIFFUSION_LIBRARIES
from generation_service.models.discovery import MusicGenFolder, find_installed_models
from generation_service.models.finding import Finding
from generation_service.models.published import PUBLISHED
from service_runtime.optional_deps import install_extra_command

INSTALL_COMMAND = install_extra_command("musicgen")
LIBRARIES = ("transformers", "sentencepiece", "safetensors", "huggingface_hub")
"""The libraries that MusicGen needs in addition to torch."""
TEXT_ENCODER_COMMAND = 'hf download t5-base --exclude "*.bin" "*.h5" "*.msgpack" "*.ot"'
"""Downloads the text encoder. The repository has the weights in five formats, of which one is needed."""


def diagnose(settings: GenerationSettings) -> Iterator[Finding]:
    """Checks Python, torch, the device, libraries and models. Imports torch, which takes seconds."""
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.machine()} {platform.system()}")
    yield from _check_torch()
    yield from check_devices(settings)
    for library in LIBRARIES:
        version = _installed_version(library)
        yield Finding(
            library, "ok" if version else "missing", version or "not installed", "" if version else INSTALL_COMMAND
        )
    yield _check_diffusers()
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


def _check_diffusers() -> Finding:
    missing = [library for library in DIFFUSION_LIBRARIES if not _installed_version(library)]
    if missing:
        found = f"{' and '.join(missing)} not installed; only Stable Audio and ACE-Step need diffusers"
        return Finding("diffusers", "missing", found, install_extra_command("diffusion"))
    return Finding("diffusers", "ok", _installed_version("diffusers"))


def _check_torch() -> Iterator[Finding]:
    try:
        import torch
    except ImportError as error:
        missing = error.name == "torch"
        found = "not installed; MusicGen needs it" if missing else f"can't be imported: {error}"
        yield Finding("torch", "missing" if missing else "broken", found, INSTALL_COMMAND)
        return
    built_for = f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU only"
    yield Finding("torch", "ok", f"{torch.__version__}, built for {built_for}")


def _check_models(settings: GenerationSettings) -> Iterator[Finding]:
    try:
        catalog = find_installed_models(settings)
    except ServiceError as error:
        found = "they can't be listed"
        if error.reason != "DEVICE_MISSING":
            found = f"DGX_MUSIC_DEFAULT_MODEL is {settings.default_model}"
        yield Finding("models", "broken", found, error.message)
        return
    has_musicgen = any(isinstance(catalog.get(name), MusicGenFolder) for name in catalog.names)
    if not has_musicgen:
        yield Finding(
            "musicgen", "missing", "no model is installed", f"run `dgx-music models pull {next(iter(PUBLISHED))}`"
        )
    yield _check_text_encoder(has_musicgen)
    for name in catalog.names:
        default = " (default)" if name == catalog.default_name else ""
        try:
            entry = catalog.get(name)
            info = entry.describe()
            reason = entry.precision_reason() if isinstance(entry, MusicGenFolder) else ""
        except ServiceError as error:
            yield Finding("model", "broken", f"{name}{default} is unusable", error.message)
        else:
            found = f"{name}{default}: {info.description.rstrip('.')}, {info.licence}"
            yield Finding("model", "ok", f"{found}; {reason}" if reason else found)


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
