"""The clocks that a soak steps."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.stepped_clock import SteppedClock, build_library

PROGRAM = """
import datetime, sys, time
for _ in sys.stdin:
    started_at = time.monotonic()
    time.sleep(0.01)
    is_monotonic = 0.01 <= time.monotonic() - started_at < 1800
    print(time.time(), time.time_ns() / 1e9, datetime.datetime.now().timestamp(), is_monotonic, flush=True)
"""


def test_step_moves_the_time_of_day_alone(tmp_path: Path) -> None:
    library = build_library(tmp_path)
    if library is None:
        pytest.skip("there is no C compiler")
    clock = SteppedClock(library, tmp_path / "clock")
    command = [sys.executable, "-c", PROGRAM]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=clock.environment, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for seconds in (0, 3600, -3600, 0):
            clock.set_step(seconds)
            process.stdin.write("\n")
            process.stdin.flush()
            *shown, is_monotonic = process.stdout.readline().split()
            assert [round((float(one) - time.time()) / 1800) for one in shown] == [seconds / 1800] * 3
            assert is_monotonic == "True"
        process.stdin.close()
