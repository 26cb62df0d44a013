"""Runs the stages of `benchmarks/gpu.sh`, each in a process of its own with a time limit, and keeps their results.

A stage that hangs, crashes or fails costs only itself: what it had found stays, and the next stage runs. The results
are in one JSON file, which is rewritten at each result:

    {"machine": {...}, "stages": {name: {"status", "seconds", "problem"}}, "results": {stage: {name: value}}}
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import selectors
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

MARK = "@result "
"""Starts a line of a stage's output that is a result: JSON of a name and a value."""
TOTAL_SECONDS = 290.0
"""No stage runs longer than this after the start; the command's own limit is 5 minutes."""
KEPT_LINES = 40
_TEST_LINE = re.compile(r"(\S+::.*?) (PASSED|FAILED|SKIPPED|ERROR)\b(?! -)|ERROR (\S+\.py)$")
NEEDED = ("torch", "numpy", "transformers", "sentencepiece", "yaml", "pydantic_settings", "structlog", "platformdirs")


@dataclass(frozen=True, slots=True)
class Options:
    """What the stages need to know."""

    device: str
    is_tiny: bool
    folder: Path
    """Where checkpoints, T5 and Triton's cache are written."""
    output: Path
    is_isolated: bool = False
    """Whether stages start a new Python instead of going on in a copy of this process."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One part of the measurement."""

    name: str
    run: Callable[[Options], None]
    limit_seconds: float


def emit(name: str, value: object) -> None:
    """Reports a result from within a stage."""
    print(f"{MARK}{json.dumps([name, value])}", flush=True)


def parse_test_line(line: str) -> tuple[str, str] | None:
    """A line of `pytest -v` → the test and its outcome, e.g. "passed"; None for other lines."""
    if (found := _TEST_LINE.match(line)) is None:
        return None
    return found[1] or found[3], (found[2] or "error").lower()


class Results:
    """The JSON file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data: dict[str, Any] = {"machine": {}, "stages": {}, "results": {}}

    def load(self) -> None:
        """Goes on with what an earlier run has written, if there is any."""
        if self.path.exists():
            self.data = json.loads(self.path.read_text())

    def save(self) -> None:
        partial = self.path.with_suffix(".part")
        partial.write_text(json.dumps(self.data, indent=1))
        partial.replace(self.path)


def run_stage(stage: Stage, options: Options, results: Results, seconds_left: float) -> None:
    """Runs a stage in a child process and stores its results. Returns within its limit, whatever it does."""
    entry = results.data["stages"][stage.name] = {"status": "running", "seconds": 0.0, "problem": ""}
    results.save()
    limit = min(stage.limit_seconds, seconds_left)
    started_at = time.monotonic()
    lines: list[str] = []
    if limit <= 0:
        entry.update(status="skipped", problem="no time was left")
        results.save()
        return
    reader, child = _fork(stage, options)
    status = None
    with open(reader, "rb", buffering=0) as pipe:
        for line in _lines(pipe.fileno(), started_at + limit):
            if line.startswith(MARK):
                name, value = json.loads(line.removeprefix(MARK))
                results.data["results"].setdefault(stage.name, {})[name] = value
                results.save()
                print(f"  {name}: {_shorten(value)}", flush=True)
            elif line.strip():
                lines = [*lines[1 - KEPT_LINES :], line]
        status = _wait(child, started_at + limit)
    entry["seconds"] = round(time.monotonic() - started_at, 1)
    if status is None:
        entry.update(status="timed out", problem=f"stopped after {limit:.0f} s")
    elif status:
        entry.update(status="failed", problem=lines[-1] if lines else f"the process ended with status {status}")
    else:
        entry["status"] = "ok"
    if entry["status"] != "ok":
        entry["output"] = lines
        print("\n".join(f"    {line}" for line in lines), file=sys.stderr)
    print(f"{stage.name}: {entry['status']} in {entry['seconds']} s {entry['problem']}", flush=True)
    results.save()


def _fork(stage: Stage, options: Options) -> tuple[int, int]:
    # Forked, not spawned: importing torch and transformers takes seconds. This process never touches CUDA.
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns if numpy has started threads.
        child = os.fork()
    if child:
        os.close(writer)
        return reader, child
    status = 1
    try:
        os.setsid()  # A process group of its own, which can be ended with all that it started.
        os.dup2(writer, 1)
        os.dup2(writer, 2)
        sys.stdout = sys.stderr = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
        if options.is_isolated:
            os.execv(
                sys.executable, [sys.executable, "-m", "benchmarks.gpu", *_arguments(options), "--run", stage.name]
            )
        stage.run(options)
        status = 0
    except BaseException as error:
        traceback.print_exc()
        print(f"{type(error).__name__}: {error}".partition("\n")[0])
    finally:
        sys.stdout.flush()
        os._exit(status)
    raise AssertionError("not reached")


def _arguments(options: Options) -> list[str]:
    tiny = ["--tiny"] if options.is_tiny else []
    return ["--device", options.device, "--folder", str(options.folder), "--output", str(options.output), *tiny]


def _lines(descriptor: int, deadline: float) -> Iterator[str]:
    """The lines that come until the end or the deadline."""
    os.set_blocking(descriptor, False)
    partial = b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            if not selector.select(left):
                continue
            data = os.read(descriptor, 1 << 16)
            if not data:
                break
            *complete, partial = (partial + data).split(b"\n")
            for line in complete:
                yield line.decode(errors="replace")
    if partial:
        yield partial.decode(errors="replace")


def _wait(child: int, deadline: float) -> int | None:
    """The exit status, or None if the child had to be ended at the deadline."""
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _shorten(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) < 160 else f"{text[:160]}…"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="tiny models: shows in a minute that every stage works")
    parser.add_argument("--output", type=Path, default=Path("gpu-results.json"))
    parser.add_argument("--folder", type=Path, help="where to write the models; default: a temporary folder")
    parser.add_argument("--stages", help="only these, separated by commas; others' results stay")
    parser.add_argument("--isolated", action="store_true", help="start a new Python for each stage: slower")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    parser.add_argument("--report", type=Path, help="print the tables of an earlier run's JSON, and measure nothing")
    arguments = parser.parse_args()
    from benchmarks.gpu_report import markdown

    if arguments.report:
        print(markdown(json.loads(arguments.report.read_text())))
        return
    started_at = time.monotonic()
    _require_packages()
    with tempfile.TemporaryDirectory(prefix="dgx-music-gpu-") as temporary:
        folder = (arguments.folder or Path(temporary)).resolve()
        os.environ |= {"HF_HOME": str(folder / "hf"), "TRITON_CACHE_DIR": str(folder / "triton")}
        from benchmarks.gpu_stages import STAGES, describe_machine, preload

        options = Options(
            arguments.device,
            arguments.tiny,
            folder,
            arguments.output.resolve(),
            arguments.isolated and not arguments.run,
        )
        if arguments.run:
            next(stage for stage in STAGES if stage.name == arguments.run).run(options)
            return
        results = Results(options.output)
        if arguments.stages:
            results.load()
        results.data["machine"] = describe_machine(options)
        results.save()
        preload()
        names = {"prepare", *arguments.stages.split(",")} if arguments.stages else {stage.name for stage in STAGES}
        chosen = [stage for stage in STAGES if stage.name in names]
        for stage in chosen:
            run_stage(stage, options, results, started_at + TOTAL_SECONDS - time.monotonic())
            if (
                stage.name == "device"
                and results.data["stages"]["device"]["status"] != "ok"
                and not options.is_isolated
            ):
                # A library that touched CUDA when it was imported would make it unusable in copies of this process.
                options = replace(options, is_isolated=True)
                run_stage(stage, options, results, started_at + TOTAL_SECONDS - time.monotonic())
    results.data["seconds"] = round(time.monotonic() - started_at, 1)
    results.save()
    print(f"\n{markdown(results.data)}")
    failed = [stage.name for stage in chosen if results.data["stages"][stage.name]["status"] != "ok"]
    print(
        f"\n{results.path}: {len(chosen) - len(failed)} of {len(chosen)} stages are ok, in {results.data['seconds']} s"
    )
    if failed:
        sys.exit(f"these stages are not: {', '.join(failed)}")


def _require_packages() -> None:
    from importlib.util import find_spec

    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        sys.exit(f"these modules are missing: {', '.join(missing)}; install them, e.g. pip install '.[musicgen]'")


if __name__ == "__main__":
    main()
