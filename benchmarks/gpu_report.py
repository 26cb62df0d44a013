"""Turns the JSON of `benchmarks/gpu.sh` into the tables of RESULTS.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

TARGETS = {
    "alone": "≥ 40",
    "64": "≥ 300",
    "first": "≤ 60",
    "medium": "≥ 15",
    "large": "≥ 8",
    "transformers": "≥ 20",
    "memory": "≤ 45",
    "cold": "≤ 20",
}
"""For an H100 or H200."""


def markdown(data: Mapping[str, Any]) -> str:
    """All tables, as far as there are results."""
    results = data["results"]
    small = results.get("small", {})
    parts = [
        _machine(data["machine"]),
        _table(("Stage", "Outcome", "s"), ((n, _outcome(e), e["seconds"]) for n, e in data["stages"].items())),
        _table(("Correctness", ""), _correctness(results)),
        _table(("What", "Measured", "Target on H100/H200"), _headlines(results)),
        _table(
            ("small: requests × length", "audio-s/s", "steps/s", "first 100 ms, ms", "peak GB"),
            ((name, *_throughput(value)) for name, value in small.items() if " × " in name and "calib" not in name),
        ),
        _table(
            ("Weights", "requests × length", "audio-s/s", "steps/s", "first 100 ms, ms", "peak GB"),
            _variants(results),
        ),
        _table(("One step", *results.get("profile", {})), _profile(results.get("profile", {}))),
        _table(("Operation", "Kernel", "µs", "Why not another"), _kernels(small.get("kernels", []))),
        _table(
            (
                "Simulated with the measured steps (predicted)",
                "audio-s/s",
                "first 100 ms p50, ms",
                "p99, ms",
                "stall, ms",
            ),
            (
                (
                    name,
                    _number(v["full_audio_seconds_per_second"]),
                    *(_milliseconds(v[key]) for key in ("first_100_ms_p50", "first_100_ms_p99", "longest_stall")),
                )
                for name, v in results.get("simulation", {}).items()
                if "engines" in name
            ),
        ),
    ]
    return "\n\n".join(part for part in parts if part)


def _machine(machine: Mapping[str, Any]) -> str:
    gpu = machine.get("gpu") or "no GPU"
    versions = ", ".join(
        f"{key} {machine[key]}"
        for key in ("driver", "cuda", "torch", "triton", "transformers", "python")
        if machine.get(key)
    )
    return (
        f"{gpu}, {machine.get('memory_gb', 'unknown')} GB; device {machine['device']}, {machine['models']}; "
        f"{versions}; "
        f"commit {machine['commit'] or 'unknown'}{', modified' if machine['modified'] else ''}; {machine['started_at']}"
    )


def _outcome(entry: Mapping[str, Any]) -> str:
    return f"{entry['status']}{': ' if entry['problem'] else ''}{entry['problem']}"[:150]


def _correctness(results: Mapping[str, Any]) -> Iterable[tuple[object, ...]]:
    tests = results.get("tests", {})
    if tests:
        yield "pytest -m cuda", ", ".join(f"{count} {word}" for word, count in tests.get("outcome", {}).items())
    for name, value in (results.get("exact", {}) | results.get("conditions", {})).items():
        if name.startswith("seconds"):
            continue
        yield f"greedy codes: {name}", f"{value:.1%}" if isinstance(value, float) else value


def _headlines(results: Mapping[str, Any]) -> Iterable[tuple[object, ...]]:
    small = results.get("small", {})
    batches = {
        int(name.split()[0]): value for name, value in reversed(small.items()) if " × " in name and "cal" not in name
    }
    if alone := batches.get(1):
        yield "small alone, × real time", _number(alone["audio_seconds_per_second"]), TARGETS["alone"]
    for batch in (64, 128):
        if value := batches.get(batch):
            yield f"small, batch {batch}, audio-s/s", _number(value["audio_seconds_per_second"]), TARGETS["64"]
    if 128 in batches and "peak_gb" in batches[128]:
        yield "small, 128 × 30 s, GB", _number(batches[128]["peak_gb"]), TARGETS["memory"]
    for name, value in small.items():
        if name.startswith("first 100 ms"):
            yield (
                f"{name}: median, max, ms",
                f"{_milliseconds(value['median'])}, {_milliseconds(value['max'])}",
                TARGETS["first"],
            )
    for shape in ("medium", "large"):
        for precision, figures in results.get(shape, {}).items():
            for name, value in figures.items():
                if name.startswith("1 × "):
                    rate = _number(value["audio_seconds_per_second"])
                    yield f"{shape} alone, {precision}, × real time", rate, TARGETS[shape]
    if (ratio := results.get("transformers", {}).get("ours / the fastest of transformers")) is not None:
        yield "small alone / transformers, steps/s", f"{ratio:.1f}×", TARGETS["transformers"]
    for stage, name in (("small", "first start"), ("second start", "second start")):
        if (seconds := results.get(stage, {}).get("load_seconds")) is not None:
            yield f"small, {name}: ready after, s", _number(seconds), TARGETS["cold"]


def _throughput(value: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        _number(value["audio_seconds_per_second"]),
        _number(value["steps_per_second"]),
        _milliseconds(value["first_100_ms_seconds"]),
        _number(value.get("peak_gb")),
    )


def _variants(results: Mapping[str, Any]) -> Iterable[tuple[object, ...]]:
    for stage, prefix in (("formats", "small"), ("medium", "medium"), ("large", "large")):
        for precision, figures in results.get(stage, {}).items():
            if "problem" in figures:
                yield f"{prefix}, {precision}", figures["problem"][:100], *[""] * 4
            for name, value in figures.items():
                if " × " in name:
                    yield f"{prefix}, {precision}", name, *_throughput(value)


def _profile(batches: Mapping[str, Any]) -> Iterable[tuple[object, ...]]:
    first: Mapping[str, Any] = next(iter(batches.values()), {})
    for key in first:
        if key != "by_kernel":
            yield key.replace("_", " "), *(value.get(key, "") for value in batches.values())
    for index in range(10):
        rows = [value.get("by_kernel", []) for value in batches.values()]
        if rows and any(index < len(row) for row in rows):
            cells = (
                f"{row[index]['name'][:40]} × {row[index]['count']}: {row[index]['us']} µs" if index < len(row) else ""
                for row in rows
            )
            yield f"{index + 1}. kernel", *cells


def _kernels(kernels: Iterable[Mapping[str, Any]]) -> Iterable[tuple[object, ...]]:
    for kernel in kernels:
        times = ", ".join(f"{name} {us:.1f}" for name, us in kernel["microseconds"].items())
        yield kernel["operation"], kernel["implementation"], times, kernel["reason"]


def _table(header: tuple[object, ...], rows: Iterable[tuple[object, ...]]) -> str:
    lines = [_row(header), _row(("---",) * len(header)), *(_row(row) for row in rows)]
    return "\n".join(lines) if len(lines) > 2 else ""


def _row(cells: Iterable[object]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.1f}"
