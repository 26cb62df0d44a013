"""The stage of `benchmarks/gpu.sh` that looks into a decode step: its kernels, their time, and the gaps between."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import torch
from torch.profiler import ProfilerActivity

from benchmarks.gpu import Options, emit
from benchmarks.gpu_models import generate, load
from generation_service.models.base import GenerationParameters
from generation_service.models.musicgen.model import MusicGen

STEPS = 20
WARM_UP_STEPS = 120
"""Beyond the first chunks, which come more often."""
LISTED_KERNELS = 25


def profile(options: Options) -> None:
    """Profiles steps of small, alone and in a batch."""
    model, _ = load(
        options.folder / "small",
        options.device,
        "fp32" if options.device == "cpu" else "bf16",
        max_batch_size=8 if options.is_tiny else 64,
    )
    generate(model, 1, 0.5)
    layers = model._generator.config.num_layers
    warm_up_steps, steps = (20, 5) if options.is_tiny else (WARM_UP_STEPS, STEPS)
    for batch in (1, 2) if options.is_tiny else (1, 64):
        events = _profile_steps(model, batch, options.device, warm_up_steps, steps)
        emit(f"batch {batch}", summarize(events, steps, layers))


def _profile_steps(
    model: MusicGen, batch: int, device: str, warm_up_steps: int, steps: int
) -> list[tuple[str, int, float, float]]:
    """(name, stream, start, duration in µs) of every kernel of several steps in a row."""
    rate = model.info.sample_rate_hz
    states = [model.prefill(GenerationParameters(f"piano {i}", 30 * rate, seed=i)) for i in range(batch)]
    try:
        for _ in range(warm_up_steps):
            model.step(states)
        activities = [ProfilerActivity.CUDA] if device == "cuda" else [ProfilerActivity.CPU]
        with torch.profiler.profile(activities=activities) as profiler:
            for _ in range(steps):
                model.step(states)
            if device == "cuda":
                torch.cuda.synchronize()
    finally:
        for state in states:
            model.release(state)
    return _events(profiler, device)


def _events(profiler: Any, device: str) -> list[tuple[str, int, float, float]]:
    # On the CPU the operators that are within no other stand for kernels.
    if device == "cpu":
        return [
            (event.name, 0, float(event.time_range.start), float(event.time_range.elapsed_us()))
            for event in profiler.events()
            if event.cpu_parent is None
        ]
    return [
        (event.name(), event.device_resource_id(), event.start_ns() / 1e3, event.duration_ns() / 1e3)
        for event in profiler.profiler.kineto_results.events()
        if event.device_type() == torch.autograd.DeviceType.CUDA
    ]


def summarize(events: list[tuple[str, int, float, float]], steps: int, layers: int) -> dict[str, Any]:
    """Counts and times per step, in µs. The step's stream is the one with the most kernels; the other is EnCodec's."""
    if not events:
        return {"problem": "the profiler saw no kernel"}
    streams = Counter(stream for _, stream, _, _ in events)
    main = streams.most_common(1)[0][0]
    own = sorted((start, duration, name) for name, stream, start, duration in events if stream == main)
    gaps = [max(0.0, following[0] - (start + duration)) for (start, duration, _), following in itertools.pairwise(own)]
    times: Counter[str] = Counter()
    counts: Counter[str] = Counter(name for _, _, name in own)
    for _, duration, name in own:
        times[name] += duration  # type: ignore[assignment]
    span = own[-1][0] + own[-1][1] - own[0][0]
    return {
        "kernels": round(len(own) / steps, 1),
        "kernels_per_layer": round(len(own) / steps / layers, 2),
        "kernel_us": round(sum(duration for _, duration, _ in own) / steps, 1),
        "gap_us": round(sum(gaps) / steps, 1),
        "median_gap_us": round(sorted(gaps)[len(gaps) // 2], 2) if gaps else 0.0,
        "step_us": round(span / steps, 1),
        "other_streams_us": round(sum(d for _, stream, _, d in events if stream != main) / steps, 1),
        "by_kernel": [
            {"name": name[:80], "count": round(counts[name] / steps, 1), "us": round(total / steps, 2)}
            for name, total in times.most_common(LISTED_KERNELS)
        ],
    }
