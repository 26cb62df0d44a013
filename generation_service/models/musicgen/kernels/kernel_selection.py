"""Chooses among the implementations of an operation: those that are correct on this device, by their speed on it."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from generation_service.models.execution import KernelChoice

Call = Callable[[], Tensor]
"""Runs an operation once, on inputs that are fixed. → [rows, …]."""
Name = TypeVar("Name", bound=str)
Timer = Callable[[Sequence[Call]], float]
"""Runs all calls and returns the microseconds that one of them takes."""

ROW_COUNTS = (2, 16, 128)
"""The rows that are tried: 1, 8 and 64 requests with guidance."""
_MARGIN = 0.8
"""A less preferred implementation that rounds in another way is chosen if it takes less than this part of the time. A
small difference may be noise, and a seed should make the same music after every start."""
_RUNS = 9


@dataclass(frozen=True, slots=True)
class Candidate:
    """An implementation of an operation."""

    implementation: str
    prepare: Callable[[int], Sequence[Call]]
    """Number of rows → calls whose weights or caches are in different memory, so that the L2 cache holds those of none
    when its turn comes; inputs and results are the same. The first rows of the inputs are the same for any number."""


def choose_kernel(
    operation: str,
    candidates: Sequence[Candidate],
    timer: Timer,
    *,
    tolerance: float,
    row_counts: Sequence[int] = ROW_COUNTS,
) -> KernelChoice:
    """Candidates are given in the order of preference; the last is the reference.

    A candidate is left out if it raises, if its result differs from the reference's by more than `tolerance` times the
    reference's norm, or if the result of a row depends on the number of rows. Of the others the most preferred is
    chosen, unless one takes less time and gives the same results to the last bit, or takes less than 0.8 of its time.
    The time is relative to the reference's; the first of `row_counts`, a single request, counts as much as all the
    others together.
    Raises whatever the reference raises.
    """
    reference = candidates[-1]
    expected = _run(reference, row_counts)
    baseline = [timer(reference.prepare(rows)) for rows in row_counts]
    chosen, chosen_score, chosen_results = "", 0.0, expected
    microseconds: dict[str, float] = {}
    reasons = []
    for candidate in candidates:
        name, results, times = candidate.implementation, expected, baseline
        if candidate is not reference:
            try:
                results = _run(candidate, row_counts)
                problem = _find_problem(results, expected, tolerance)
                if not problem:
                    times = [timer(candidate.prepare(rows)) for rows in row_counts]
            except Exception as error:  # Compilers and drivers raise anything.
                problem = f"{type(error).__name__}: {error}".splitlines()[0]
            if problem:
                reasons.append(f"{name}: {problem}")
                continue
        microseconds[name] = times[0]
        score = _score([time / base for time, base in zip(times, baseline, strict=True)])
        margin = 1.0 if all(results[rows].equal(chosen_results[rows]) for rows in row_counts) else _MARGIN
        if not chosen or score < margin * chosen_score:
            chosen, chosen_score, chosen_results = name, score, results
    return KernelChoice(operation, chosen, microseconds, "; ".join(reasons))


def usable_implementations(names: Iterable[Name], device: torch.device) -> list[Name]:
    """All but "triton_pdl" on a GPU before compute capability 9.0: the assembler would print pages of errors."""
    is_early_possible = device.type != "cuda" or torch.cuda.get_device_capability(device) >= (9, 0)
    return [name for name in names if name != "triton_pdl" or is_early_possible]


def time_on_cuda(calls: Sequence[Call]) -> float:
    """A `Timer`: the median of several replays of one CUDA graph of all calls, as the decode step is one."""
    stream = _timing_stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # Also restores the caller's stream if the capture fails.
        calls[0]()  # Compiles, and allocates workspaces, neither of which a capture allows.
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            for call in calls:
                call()
        graph.replay()
        milliseconds = [_time_replay(graph) for _ in range(_RUNS)]
    return 1000 * statistics.median(milliseconds) / len(calls)


@functools.cache
def _timing_stream() -> torch.cuda.Stream:
    """One for all: cuBLAS keeps a workspace for every stream that it has been called on, 32 MiB on an H200."""
    stream: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    return stream


def _time_replay(graph: torch.cuda.CUDAGraph) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    start.record()
    graph.replay()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


def _run(candidate: Candidate, row_counts: Sequence[int]) -> dict[int, Tensor]:
    return {rows: candidate.prepare(rows)[0]() for rows in row_counts}


def _find_problem(results: Mapping[int, Tensor], expected: Mapping[int, Tensor], tolerance: float) -> str:
    """Why results are wrong; empty if they are right."""
    for rows, result in results.items():
        reference = expected[rows].double()
        error = float(
            (result.double() - reference).norm() / reference.norm().clamp_min(torch.finfo(torch.float32).tiny)
        )
        if not error <= tolerance:
            return f"off by {error:.2g} of the result for {rows} rows; at most {tolerance:.2g} is tolerated"
    most = results[max(results)]
    for rows, result in results.items():
        if not torch.equal(result, most[:rows]):
            return f"the result of a row is another for {rows} rows than for {len(most)}"
    return ""


def _score(ratios: Sequence[float]) -> float:
    first, *others = ratios
    return (first + sum(others) / len(others)) / 2 if others else first
