"""A failpoint does what the environment of its process says, and nothing without it."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys

import pytest

from service_runtime.failpoints import VARIABLE, Failpoint, failpoint

PROGRAM = """
from service_runtime.failpoints import failpoint
for number in range(3):
    print(number, flush=True)
    failpoint("here.before_it")
    failpoint("elsewhere")
"""


@pytest.mark.parametrize(("armed", "passed"), [("", 3), ("here.before_it:kill@2", 2), ("here.before_it:kill", 1)])
def test_a_process_is_killed_at_the_point(armed: str, passed: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**os.environ, VARIABLE: armed}, capture_output=True, check=False
    )
    assert done.returncode == (-signal.SIGKILL if armed else 0)
    assert len(done.stdout.split()) == passed


def test_a_point_can_raise_what_a_disk_does_from_some_time_on() -> None:
    point = Failpoint("export.before_rename:ENOSPC@2")
    point.reached()
    for _ in range(2):
        with pytest.raises(OSError, match=r"export\.before_rename") as raised:
            point.reached()
        assert raised.value.errno == errno.ENOSPC


@pytest.mark.parametrize("text", ["here", "here:explode", "here:ENOTHING", "here:kill@0", "Here:kill", ":kill"])
def test_what_is_no_failpoint_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be POINT:kill or POINT:ERRNO"):
        Failpoint(text)


def test_where_nothing_is_armed_nothing_happens() -> None:
    failpoint("here.before_it")
