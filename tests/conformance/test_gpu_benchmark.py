"""`benchmarks/gpu.sh` can't be run here as on a GPU, so what must hold on any machine is tested: a stage costs only
itself, results are kept as they come, and what they are turned into."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import engine_simulation_model
from benchmarks.engine_simulation_costs import H200, SMALL, Costs, MeasuredStep, calibrated
from benchmarks.gpu import Options, Results, Stage, emit, parse_test_line, run_stage
from benchmarks.gpu_report import markdown


def hang(options: Options) -> None:
    """With a process that it has started, and that would keep its output open."""
    emit("before", 1)
    os.fork()
    time.sleep(60)


def raise_error(options: Options) -> None:
    emit("before", 1)
    raise ValueError("the kernel is wrong")


def crash(options: Options) -> None:
    emit("before", 1)
    os.kill(os.getpid(), signal.SIGKILL)


def succeed(options: Options) -> None:
    emit("before", 1)
    print("not a result")
    emit("after", {"x": [1.5, None]})


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path / "results.json")


def run(results: Results, function: Callable[[Options], None], limit_seconds: float, left: float = 30.0) -> Any:
    options = Options("cpu", True, results.path.parent, results.path)
    run_stage(Stage(function.__name__, function, limit_seconds), options, results, left)
    return json.loads(results.path.read_text())


@pytest.mark.parametrize(
    ("function", "limit_seconds", "status", "problem"),
    [
        pytest.param(hang, 1.5, "timed out", "stopped after 2 s", marks=pytest.mark.slow),
        (raise_error, 20.0, "failed", "ValueError: the kernel is wrong"),
        (crash, 20.0, "failed", "the process ended with status"),
    ],
)
def test_stage_that_fails_costs_only_itself(
    results: Results, function: Callable[[Options], None], limit_seconds: float, status: str, problem: str
) -> None:
    started_at = time.monotonic()
    data = run(results, function, limit_seconds)
    assert time.monotonic() - started_at < 10
    entry = data["stages"][function.__name__]
    assert (entry["status"], problem in entry["problem"]) == (status, True), entry
    assert data["results"][function.__name__] == {"before": 1}, "what was found before is kept"
    data = run(results, succeed, 20.0)
    assert data["stages"]["succeed"]["status"] == "ok"
    assert data["results"]["succeed"] == {"before": 1, "after": {"x": [1.5, None]}}
    assert data["results"][function.__name__] == {"before": 1}


def test_no_stage_starts_when_the_time_is_up(results: Results) -> None:
    assert run(results, succeed, 20.0, left=-1.0)["stages"]["succeed"]["status"] == "skipped"


@pytest.mark.parametrize(
    ("line", "result"),
    [
        ("tests/test_a.py::test_x[fp32, 1] PASSED           [ 12%]", ("tests/test_a.py::test_x[fp32, 1]", "passed")),
        ("tests/test_a.py::test_x SKIPPED (needs a GPU) [ 2%]", ("tests/test_a.py::test_x", "skipped")),
        ("tests/test_a.py::A::test_x FAILED  [100%]", ("tests/test_a.py::A::test_x", "failed")),
        ("tests/test_a.py::test_x ERROR  [100%]", ("tests/test_a.py::test_x", "error")),
        ("ERROR tests/test_b.py", ("tests/test_b.py", "error")),
        ("FAILED tests/test_a.py::test_x - AssertionError", None),
        ("0.10s call     tests/test_a.py::test_x", None),
    ],
)
def test_outcome_of_each_test_is_counted_once(line: str, result: tuple[str, str] | None) -> None:
    assert parse_test_line(line) == result


def test_table_of_results_that_are_missing(results: Results) -> None:
    results.data["machine"] = {"device": "cuda", "models": "tiny", "commit": "", "modified": False, "started_at": "now"}
    run(results, raise_error, 20.0)
    assert "| raise_error | failed: ValueError: the kernel is wrong |" in markdown(results.data)


def test_calibration_finds_what_the_steps_were_made_with() -> None:
    basis = Costs(H200, SMALL)
    fixed, row, bandwidth = 3e-4, 4e-6, 3.1e12
    steps = [
        MeasuredStep(n, p, fixed + row * 2 * n + basis.step_bytes(n * p, n) / bandwidth)
        for n in (1, 16, 128)
        for p in (50, 700, 1400)
    ]
    fitted = calibrated(basis, steps)
    assert (fitted.fixed, fitted.row, fitted.device.bandwidth) == pytest.approx((fixed, row, bandwidth), rel=1e-3)
    for step in steps:
        assert fitted.step(step.requests * step.position, step.requests) == pytest.approx(step.seconds, rel=1e-3)


def test_calibration_has_no_negative_times() -> None:
    steps = [MeasuredStep(n, p, 1e-3 - 1e-7 * n + 1e-9 * p) for n in (1, 2, 4) for p in (10, 100)]
    fitted = calibrated(Costs(H200, SMALL), steps)
    assert fitted.fixed is not None
    assert fitted.row is not None
    assert min(fitted.fixed, fitted.row, fitted.device.bandwidth) >= 0


def test_calibration_needs_different_steps() -> None:
    with pytest.raises(ValueError, match="two batch sizes and two positions"):
        calibrated(Costs(H200, SMALL), [MeasuredStep(1, 10, 1e-3), MeasuredStep(1, 20, 1e-3)])


def test_simulation_decodes_the_same_chunks() -> None:
    chunk_decoder = pytest.importorskip(
        "generation_service.models.musicgen.codec.chunk_decoder", reason="MusicGen needs torch"
    )
    assert engine_simulation_model.CHUNK_FRAMES == chunk_decoder.CHUNK_FRAMES
