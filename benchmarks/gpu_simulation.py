"""The stage of `benchmarks/gpu.sh` that calibrates the simulation with what was measured, and predicts load with it."""

from __future__ import annotations

import json

from benchmarks.engine_simulation_costs import calibrated_costs, calibration_steps
from benchmarks.engine_simulation_service import burst, poisson, simulate
from benchmarks.gpu import Options, emit

LOAD = 0.8
"""Arrivals, as a share of the throughput with a full batch."""


def simulate_measured(options: Options) -> None:
    """Emits the fitted costs, and what a service with this GPU, and with eight of them, would do under load."""
    data = json.loads(options.output.read_text())
    entries, costs = calibration_steps(data), calibrated_costs(data)
    emit(
        "fit",
        {"fixed_us": (costs.fixed or 0) * 1e6, "row_us": (costs.row or 0) * 1e6}
        | {"bandwidth_gb_s": costs.device.bandwidth / 1e9},
    )
    errors = [
        abs(costs.step(entry["batch"] * entry["position"], entry["batch"]) / entry["seconds"] - 1) for entry in entries
    ]
    emit("largest error of the fit", max(errors))
    most, seconds = (8, 2) if options.is_tiny else (128, 20)
    for engines in (1, 8):
        full = simulate(costs, burst(most * engines, seconds * 50), engines=engines, max_batch_size=most)
        rate = LOAD * full.audio_seconds_per_second / seconds
        load = simulate(costs, poisson(rate, 2 * seconds, seconds * 50), engines=engines, max_batch_size=most)
        emit(
            f"{engines} engines",
            {
                "full_audio_seconds_per_second": full.audio_seconds_per_second,
                "first_100_ms_p50": load.first_audio(0.5),
                "first_100_ms_p99": load.first_audio(0.99),
                "longest_stall": max(load.gaps),
            },
        )
