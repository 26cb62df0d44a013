"""Predicts how the engine does on GPUs that are not at hand: `python -m benchmarks.engine_simulation`.

    python -m benchmarks.engine_simulation [--results gpu-results.json]

The engine's scheduler and threads are the real ones. They run under a virtual clock, with a model whose calls take the
time that `engine_simulation_costs` computes, or that was measured on a GPU (--results). What this prints are
predictions: no GPU takes part.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from benchmarks.engine_simulation_costs import (
    CPU,
    EARLY_LAUNCH_GAP,
    GB10,
    H100,
    H200,
    LARGE,
    MEDIUM,
    SMALL,
    Costs,
    calibrated_costs,
)
from benchmarks.engine_simulation_service import Simulation, burst, poisson, simulate

PIECE_FRAMES, SHORT_FRAMES = 1500, 250
LOAD = 0.8
"""Arrivals, as a share of the throughput with a full batch."""
EARLY_H200 = replace(H200, name="H200, early launches", launch_gap=EARLY_LAUNCH_GAP)
SMALL_ON = (
    *(Costs(EARLY_H200, SMALL, precision) for precision in ("bf16", "int8")),
    *(Costs(device, SMALL, precision) for device in (H200, H100, GB10) for precision in ("bf16", "int8")),
    Costs(H200, SMALL, "bf16", "fp8"),
    Costs(CPU, SMALL, "fp32", "fp32"),
)
LARGER_ON = tuple(
    Costs(device, shape, precision)
    for device in (EARLY_H200, H200, H100, GB10)
    for shape in (MEDIUM, LARGE)
    for precision in ("bf16", "int8")
)


def print_predictions(results: dict[str, Any] | None) -> None:
    """Prints all tables. `results` is the JSON of `benchmarks/gpu.sh`, whose measurements replace H200's constants."""
    basis = Costs(H200, SMALL) if results is None else calibrated_costs(results)
    _print(
        ("Predicted, 30 s each", "alone, × real time", "batch 64, audio-s/s", "batch 128", "KV cache of 128, GB"),
        (_throughput(costs) for costs in ((basis,) if results else SMALL_ON)),
    )
    if results is None:
        _print(("Predicted, alone", "× real time", "without gaps between kernels"), map(_alone, LARGER_ON))
        gaps = [replace(basis, device=replace(H200, launch_gap=gap * 1e-6)) for gap in (0.5, 1.0, 1.2, 1.5, 2.0, 3.0)]
        _print(
            ("H200, small, bf16: µs per kernel beside its bytes", *(f"{c.device.launch_gap * 1e6:g}" for c in gaps)),
            [("alone, × real time", *(f"{_speed(costs):.1f}" for costs in gaps))],
        )
    full = simulate(basis, burst(128, PIECE_FRAMES)).audio_seconds_per_second
    rate = LOAD * full * 50 / PIECE_FRAMES
    loads = {
        "one at a time": simulate(basis, [*burst(1, SHORT_FRAMES)]),
        f"Poisson, {rate:.1f}/s of 30 s ({LOAD:.0%})": simulate(basis, poisson(rate, 60, PIECE_FRAMES)),
        "burst of 128": simulate(basis, burst(128, PIECE_FRAMES)),
        "burst of 64 into 64 that run": simulate(basis, burst(64, PIECE_FRAMES) + burst(64, PIECE_FRAMES, at=2.0)),
    }
    _print(
        (f"{basis.device.name}, small, bf16", "first 100 ms after admission p50, ms", "p99", "longest stall, ms"),
        ((name, *_latency(load)) for name, load in loads.items()),
    )
    _print_fairness(basis)
    _print(
        (f"{basis.device.name}: GPUs", "audio-s/s", "speed-up", "first 100 ms p99, ms"),
        _scaling(basis),
    )


def _throughput(costs: Costs) -> tuple[str, ...]:
    batches = [simulate(costs, burst(batch, PIECE_FRAMES)).audio_seconds_per_second for batch in (64, 128)]
    memory = 128 * 2 * PIECE_FRAMES * costs.position_bytes
    return (
        f"{costs.device.name}, weights {costs.precision}, KV {costs.kv_precision}",
        f"{_speed(costs):.1f}",
        *(f"{batch:.3g}" for batch in batches),
        f"{memory / 1e9:.0f}",
    )


def _speed(costs: Costs) -> float:
    return simulate(costs, burst(1, PIECE_FRAMES)).audio_seconds_per_second


def _alone(costs: Costs) -> tuple[str, ...]:
    bound = simulate(replace(costs, fixed=0.0, row=0.0), burst(1, PIECE_FRAMES)).audio_seconds_per_second
    name = f"{costs.device.name}, {costs.shape.name}, {costs.precision}"
    return name, f"{_speed(costs):.1f}", f"{bound:.1f}"


def _latency(load: Simulation) -> tuple[str, ...]:
    return (*(f"{load.first_audio(quantile) * 1e3:.0f}" for quantile in (0.5, 0.99)), f"{max(load.gaps) * 1e3:.0f}")


def _print_fairness(basis: Costs) -> None:
    rows = []
    for name, client in {"of its own": "one", "as the same client": "many"}.items():
        load = simulate(basis, burst(5000, SHORT_FRAMES, client="many") + burst(1, SHORT_FRAMES, 1.0, client))
        late = next(request for request in load.requests if request.arrives_at)
        last = max(request.wait_seconds for request in load.requests)
        rows.append((f"1 request {name}", f"{late.wait_seconds:.2f}", f"{last:.1f}"))
    _print(("Behind 5,000 requests of 5 s of one client", "it waits, s", "the last of the others, s"), rows)


def _scaling(basis: Costs) -> Iterable[tuple[str, ...]]:
    first = 0.0
    for engines in (1, 2, 4, 8):
        load = simulate(basis, burst(256 * engines, SHORT_FRAMES), engines=engines)
        first = first or load.audio_seconds_per_second
        speed = load.audio_seconds_per_second
        yield f"{engines}", f"{speed:.0f}", f"{speed / first:.2f}×", f"{load.first_audio(0.99) * 1e3:.0f}"


def _print(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    print(f"| {' | '.join(header)} |\n|{' --- |' * len(header)}")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, help="the JSON of benchmarks/gpu.sh, which replaces the constants")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    print_predictions(json.loads(arguments.results.read_text()) if arguments.results else None)


if __name__ == "__main__":
    main()
