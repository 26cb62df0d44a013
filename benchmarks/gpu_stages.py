"""The stages of `benchmarks/gpu.sh`: correctness first, then the figures, the most important ones first."""

from __future__ import annotations

import contextlib
import importlib
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import Options, Stage, emit, parse_test_line
from benchmarks.gpu_models import describe_execution, generate, load, write_models
from generation_service.models.base import GenerationParameters
from generation_service.models.musicgen.model import MusicGen

ROOT = Path(__file__).parents[1]
CUDA_TESTS = ROOT / "tests/unit/generation_service/models/musicgen"
PYTEST_SETTINGS = "[pytest]\nmarkers = cuda: needs an NVIDIA GPU\n"
"""Instead of pyproject.toml's, which need plugins that a bare machine lacks."""
PIECES = ((1, 30), (64, 30), (128, 30), (16, 30), (4, 30), (1, 5), (64, 5), (128, 5), (16, 5))
"""Requests at a time, and seconds of audio of each; the most important first."""
CALIBRATION_POSITIONS = (50, 250, 500, 750, 1000, 1400)
LONGEST_PIECE_SECONDS = 25.0
"""A run that takes longer is stopped; its rates are those until then."""


def describe_machine(options: Options) -> dict[str, Any]:
    """The hardware and the versions. Does not touch CUDA: this process forks."""
    import transformers

    machine: dict[str, Any] = {
        "device": options.device,
        "models": "tiny" if options.is_tiny else "musicgen's shapes, random weights",
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "transformers": transformers.__version__,
        "commit": _run(["git", "rev-parse", "--short=12", "HEAD"]),
        "modified": bool(_run(["git", "status", "--porcelain", "--untracked-files=no"])),
        "started_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    try:
        import triton

        machine["triton"] = triton.__version__
    except ImportError:
        machine["triton"] = None
    return machine | read_gpu()


def read_gpu() -> dict[str, Any]:
    """What NVML reports about the first GPU; empty without one. Does not touch CUDA."""
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    except Exception:
        return {}
    readings: dict[str, Callable[[], Any]] = {
        "gpu": lambda: pynvml.nvmlDeviceGetName(handle),
        "driver": pynvml.nvmlSystemGetDriverVersion,
        "memory_gb": lambda: round(pynvml.nvmlDeviceGetMemoryInfo(handle).total / 1e9, 1),
        "memory_used_gb": lambda: round(pynvml.nvmlDeviceGetMemoryInfo(handle).used / 1e9, 1),
        "temperature_c": lambda: pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU),
        "power_w": lambda: pynvml.nvmlDeviceGetPowerUsage(handle) / 1e3,
        "sm_mhz": lambda: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM),
        "memory_mhz": lambda: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM),
    }
    found = {}
    for name, read in readings.items():
        with contextlib.suppress(Exception):  # GB10, for example, has no memory of its own.
            found[name] = read()
    pynvml.nvmlShutdown()  # So that no copy of this process inherits its state.
    return found


def _run(command: list[str]) -> str:
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def device(options: Options) -> None:
    """What torch says about the device. Shows that CUDA works in a stage's process."""
    if options.device == "cpu":
        emit("threads", torch.get_num_threads())
        return
    properties = torch.cuda.get_device_properties(0)
    for name in ("name", "multi_processor_count", "total_memory", "L2_cache_size", "is_integrated"):
        emit(name, getattr(properties, name, None))
    emit("capability", f"{properties.major}.{properties.minor}")
    source = torch.zeros(1 << 30, dtype=torch.uint8, device="cuda")
    target, times = torch.empty_like(source), []
    for _ in range(6):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        target.copy_(source)
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    emit("copy, bytes read and written per second", 2 * len(source) / min(times))


def prepare(options: Options) -> None:
    """Writes the models."""
    write_models(options.folder, is_tiny=options.is_tiny)
    size = sum(path.stat().st_size for path in options.folder.rglob("*") if path.is_file() and not path.is_symlink())
    emit("written_mb", size >> 20)


def cuda_tests(options: Options) -> None:
    """Runs the tests that are marked `cuda`. Without a GPU they are skipped, which counts as a success here."""
    files = sorted(str(path) for path in CUDA_TESTS.rglob("test_*.py") if "mark.cuda" in path.read_text())
    outcome, failures = Counter[str](), []
    with tempfile.TemporaryDirectory() as temporary:
        settings = Path(temporary, "pytest.ini")
        settings.write_text(PYTEST_SETTINGS)
        command = [sys.executable, "-m", "pytest", "-v", "-m", "cuda", "-p", "no:cacheprovider", "-p", "no:asyncio"]
        command += ["-c", str(settings), "--rootdir", str(ROOT), "--import-mode=importlib", "--tb=short"]
        command += ["--continue-on-collection-errors", "--durations=5", *files]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            if (result := parse_test_line(line)) is None:
                print(line, end="", flush=True)
                continue
            test, word = result
            outcome[word] += 1
            if word in ("failed", "error"):
                failures.append(test)
            emit("outcome", outcome)  # At each test: if the time is up, it is known how far they came.
        process.wait()
    emit("failures", failures)
    if process.returncode not in (0, 5):
        raise SystemExit(f"{len(failures)} tests failed: {', '.join(failures)}")


def small(options: Options) -> None:
    """musicgen-small: speed by batch and length, first audio, memory. The load is a cold start."""
    _use_cache_of_starts(options)
    model, seconds = load(options.folder / "small", options.device, _precision(options), max_batch_size=_most(options))
    _emit_load(model, seconds)
    measure_batches(options, model, "small", _precision(options))
    _measure_first_audio(options, model)
    emit("gpu under load", read_gpu())


def measure_batches(options: Options, model: MusicGen, shape: str, precision: str, kv_precision: str = "bf16") -> None:
    """Emits the speed of `PIECES`, and the time of a step at several positions, for the simulation."""
    pieces = ((1, 1), (4, 1), (8, 2)) if options.is_tiny else PIECES
    generate(model, 1, 0.5)  # A warm-up.
    for batch, length in pieces:
        _reset_peak(options)
        run = generate(model, batch, length, stop_after=LONGEST_PIECE_SECONDS)
        emit(f"{batch} × {length} s", run.summary() | _peak(options))
        steps = [
            {"shape": shape, "precision": precision, "kv_precision": kv_precision, "batch": batch}
            | {"position": position, "seconds": at}
            for position in ((10, 30) if options.is_tiny else CALIBRATION_POSITIONS)
            if (at := run.step_seconds_at(position, 8 if options.is_tiny else 40)) is not None
        ]
        emit(f"calibration of {batch} × {length} s", steps)


def _measure_first_audio(options: Options, model: MusicGen) -> None:
    generate(model, 1, 0.5)
    alone = [generate(model, 1, 0.5).first_audio_seconds for _ in range(3 if options.is_tiny else 10)]
    emit("first 100 ms alone", _spread(alone))
    rate, others = model.info.sample_rate_hz, 3 if options.is_tiny else 63
    states = [model.prefill(GenerationParameters(f"drums {i}", 30 * rate, seed=i)) for i in range(others)]
    try:
        for _ in range(10 if options.is_tiny else 200):
            model.step(states)
        beside = [generate(model, 1, 0.5, others=states).first_audio_seconds for _ in range(3)]
    finally:
        for state in states:
            model.release(state)
    emit(f"first 100 ms beside {others} others", _spread(beside))


def _spread(times: list[float]) -> dict[str, float]:
    return {"median": statistics.median(times), "max": max(times)}


def formats(options: Options) -> None:
    """small with 8-bit weights, and with 8-bit keys and values."""
    variants = [("int8", "auto")] if options.device == "cpu" else [("int8", "auto"), ("fp8", "auto"), ("bf16", "fp8")]
    for precision, kv_precision in variants:
        name = precision if kv_precision == "auto" else f"{precision}, KV {kv_precision}"
        try:
            model, seconds = load(
                options.folder / "small",
                options.device,
                precision,
                kv_precision=kv_precision,
                max_batch_size=_most(options),
            )
            generate(model, 1, 0.5)
            figures: dict[str, Any] = {"load_seconds": seconds}
            for batch, length in ((1, 1), (4, 1)) if options.is_tiny else ((1, 10), (64, 10)):
                _reset_peak(options)
                figures[f"{batch} × {length} s"] = generate(model, batch, length, stop_after=8).summary() | _peak(
                    options
                )
            emit(name, figures)
        except Exception as error:  # One format that fails must not cost the others.
            emit(name, {"problem": f"{type(error).__name__}: {error}"})
        model = None  # type: ignore[assignment]
        _empty_cache(options)


def _larger(options: Options, shape: str) -> None:
    for precision in ["fp32"] if options.device == "cpu" else ["bf16", "int8"]:
        model, seconds = load(options.folder / shape, options.device, precision, max_batch_size=min(32, _most(options)))
        generate(model, 1, 0.5)
        figures: dict[str, Any] = {"load_seconds": seconds}
        for batch, length in ((1, 1),) if options.is_tiny else ((1, 10), (16, 5)):
            _reset_peak(options)
            figures[f"{batch} × {length} s"] = generate(model, batch, length, stop_after=6).summary() | _peak(options)
        emit(precision, figures)
        del model
        _empty_cache(options)


def medium(options: Options) -> None:
    """musicgen-medium's shape."""
    _larger(options, "medium")


def large(options: Options) -> None:
    """musicgen-large's shape."""
    _larger(options, "large")


def second_start(options: Options) -> None:
    """Loads small again in a new process: what compilation left in Triton's cache is found."""
    _use_cache_of_starts(options)
    model, seconds = load(options.folder / "small", options.device, _precision(options), max_batch_size=_most(options))
    _emit_load(model, seconds)
    started_at = time.perf_counter()
    generate(model, 1, 0.5)
    emit("first request_seconds", time.perf_counter() - started_at)


def _use_cache_of_starts(options: Options) -> None:
    """The other stages share a cache, in which the kernels that they compiled would make the first start warm."""
    os.environ["TRITON_CACHE_DIR"] = str(options.folder / "triton of starts")


def _emit_load(model: MusicGen, seconds: float) -> None:
    emit("load_seconds", seconds)
    execution = describe_execution(model)
    emit("kernels", execution.pop("kernels", []))
    emit("execution", execution)
    emit("kv_pool_bytes", model.memory.limit_bytes)


def _precision(options: Options) -> str:
    return "fp32" if options.device == "cpu" else "bf16"


def _most(options: Options) -> int:
    return 8 if options.is_tiny else 128


def _reset_peak(options: Options) -> None:
    if options.device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def _peak(options: Options) -> dict[str, float]:
    return {"peak_gb": torch.cuda.max_memory_allocated() / 1e9} if options.device == "cuda" else {}


def _empty_cache(options: Options) -> None:
    if options.device == "cuda":
        torch.cuda.empty_cache()


def _from(module: str, name: str) -> Callable[[Options], None]:
    """A stage of another module, which is imported by the stage, so that a broken import costs only that."""

    def run(options: Options) -> None:
        getattr(importlib.import_module(f"benchmarks.{module}"), name)(options)

    return run


def preload() -> None:
    """Imports what the stages need, once for all. What can't be imported fails in its stage."""
    for name in ("gpu_comparison", "gpu_profile", "gpu_simulation"):
        with contextlib.suppress(Exception):
            importlib.import_module(f"benchmarks.{name}")
    with contextlib.suppress(Exception):
        from transformers import MusicgenForCausalLM, T5EncoderModel, T5Tokenizer  # noqa: F401


STAGES = (
    Stage("device", device, 30),
    Stage("prepare", prepare, 40),
    Stage("tests", cuda_tests, 75),
    Stage("exact", _from("gpu_comparison", "exact"), 40),
    Stage("conditions", _from("gpu_comparison", "conditions"), 30),
    Stage("small", small, 100),
    Stage("simulation", _from("gpu_simulation", "simulate_measured"), 20),
    Stage("transformers", _from("gpu_comparison", "against_transformers"), 30),
    Stage("profile", _from("gpu_profile", "profile"), 40),
    Stage("second start", second_start, 30),
    Stage("large", large, 45),
    Stage("formats", formats, 60),
    Stage("medium", medium, 40),
)
"""The limits add up to more than the whole has: a stage usually takes half of its own."""
