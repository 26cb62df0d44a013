"""Checks the devices of this machine, and says which engines the settings start on them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from dgx_music.errors import ServiceError
from generation_service.config import GenerationSettings
from generation_service.hardware.devices import Devices, torch_cuda_version
from generation_service.hardware.memory import host_memory
from generation_service.models.finding import Finding
from service_runtime.optional_deps import pip_install_command

NVIDIA_DEVICE = Path("/dev/nvidiactl")
"""Exists if the driver of an NVIDIA GPU is running."""
TRITON_CHECK = ("-P", "-m", "generation_service.hardware.triton_check")
TRITON_TIMEOUT_SECONDS = 120.0
GIB = 2**30


def check_devices(settings: GenerationSettings, devices: Devices | None = None) -> Iterator[Finding]:
    """Checks the GPUs that the driver reports, torch's use of them, the engines and Triton. Imports torch."""
    devices = devices or Devices()
    gpus = devices.resolve("all") if devices.visible_gpus else ()
    for device in gpus:
        reading = devices.read(device)
        facts = [device.gpu_name]
        if reading.memory_total_bytes is not None and reading.memory_used_bytes is not None:
            used, total = reading.memory_used_bytes / GIB, reading.memory_total_bytes / GIB
            facts.append(f"{used:.1f} of {total:.1f} GiB in use")
        for value, unit in ((reading.temperature_celsius, "°C"), (reading.power_watts, "W")):
            if value is not None:
                facts.append(f"{value:.0f} {unit}")
        yield Finding(device.name, "ok", ", ".join(facts))
    yield from _check_torch_devices()
    yield _check_engines(settings, devices)
    yield _check_triton(has_gpu=bool(gpus) and torch_cuda_version() is not None)


def _check_torch_devices() -> Iterator[Finding]:
    try:
        import torch
    except ImportError:
        return  # The check of torch says so.
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            yield _check_gpu(index)
        return
    memory = host_memory()
    cpu = f"CPU, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"
    if memory is not None:
        cpu += f", {memory.total_bytes / GIB:.1f} GiB"
    advice = ""
    if NVIDIA_DEVICE.exists() and not torch.version.cuda:
        reinstall = pip_install_command("--force-reinstall", "torch==2.13.0")
        advice = f"this build of torch can't use the NVIDIA GPU; install the one from PyPI: {reinstall}"
    elif NVIDIA_DEVICE.exists():
        advice = (
            "torch does not find the NVIDIA GPU; check with nvidia-smi that its driver supports CUDA "
            f"{torch.version.cuda}"
        )
    yield Finding("device", "missing" if advice else "ok", cpu, advice)


def _check_gpu(index: int) -> Finding:
    import torch

    gpu = torch.cuda.get_device_properties(index)
    arch = f"sm_{gpu.major}{gpu.minor}"
    found = f"{gpu.name}, {gpu.total_memory / GIB:.1f} GiB, {gpu.multi_processor_count} SMs, {arch}"
    try:
        torch.ones(1, device=f"cuda:{index}").add_(1).item()
    except RuntimeError as error:
        problem = str(error).partition("\n")[0]
        built_for = ", ".join(torch.cuda.get_arch_list())
        advice = f"torch is built for {built_for}; install a build for {arch}, or set DGX_MUSIC_DEVICES=cpu"
        return Finding("device", "broken", f"{found}: {problem}", advice)
    return Finding("device", "ok", found)


def _check_engines(settings: GenerationSettings, devices: Devices) -> Finding:
    try:
        chosen = devices.resolve(settings.devices)
    except ServiceError as error:
        return Finding("engines", "broken", f"DGX_MUSIC_DEVICES is {settings.devices}", error.message)
    if chosen[0].kind == "cuda" and torch_cuda_version() is None:
        advice = f"set DGX_MUSIC_DEVICES=cpu, or install {pip_install_command('--force-reinstall', 'torch==2.13.0')}"
        return Finding("engines", "broken", f"DGX_MUSIC_DEVICES is {settings.devices}, but torch has no CUDA", advice)
    engines = ", ".join(f"{device.name} (batch {devices.max_batch_size(device, settings)})" for device in chosen)
    place = "within the service" if len(chosen) == 1 and chosen[0].kind == "cpu" else "one process each"
    return Finding("engines", "ok", f"{engines}; {place}")


def _check_triton(*, has_gpu: bool) -> Finding:
    """Compiles a kernel in a process of its own, if there is a GPU."""
    try:
        version = metadata.version("triton")
    except metadata.PackageNotFoundError:
        if not has_gpu:
            return Finding("triton", "ok", "not installed; only a GPU needs it")
        advice = f"generation is slower without it; run {pip_install_command('triton')}"
        return Finding("triton", "missing", "not installed", advice)
    if not has_gpu:
        return Finding("triton", "ok", f"{version}, not used without a GPU")
    problem = _compile_kernel()
    if problem:
        advice = (
            "generation is slower without it; it needs a C compiler and Python's headers: "
            "apt install gcc libc6-dev python3-dev"
        )
        return Finding("triton", "missing", f"{version} does not compile: {problem}", advice)
    return Finding("triton", "ok", f"{version}, compiles for the GPU")


def _compile_kernel() -> str:
    """Returns why Triton can't compile a kernel, or an empty string if it can."""
    try:
        done = subprocess.run(
            [sys.executable, *TRITON_CHECK],
            capture_output=True,
            text=True,
            timeout=TRITON_TIMEOUT_SECONDS,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return ""
    return next(reversed(done.stderr.strip().splitlines()), f"exit status {done.returncode}")
