"""What a failpoint does to its process."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys

import pytest

from service_runtime.failpoints import ENVIRONMENT_VARIABLE, Failpoint, failpoint

PROGRAM = """
from service_runtime.failpoints import failpoint
for number in range(3):
    print(number, flush=True)
    failpoint("here.before_it")
    failpoint("elsewhere")
"""


@pytest.mark.parametrize(
    ("armed", "passed"),
    [("", 3), ("here.before_it:kill@2", 2), ("here.before_it:kill", 1), ("elsewhere:kill@9,here.before_it:kill@2", 2)],
)
def test_armed_point_kills_the_process(armed: str, passed: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, ENVIRONMENT_VARIABLE: armed},
        capture_output=True,
        check=False,
    )
    assert done.returncode == (-signal.SIGKILL if armed else 0)
    assert len(done.stdout.split()) == passed


def test_armed_point_stops_the_process_once() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], env={**os.environ, ENVIRONMENT_VARIABLE: "here.before_it:stop@2"}
    ) as process:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        process.send_signal(signal.SIGCONT)
        assert process.wait(60) == 0


def test_armed_point_raises_from_the_nth_hit_on() -> None:
    point = Failpoint("export.before_rename:ENOSPC@2")
    point.hit()
    for _ in range(2):
        with pytest.raises(OSError, match=r"export\.before_rename") as raised:
            point.hit()
        assert raised.value.errno == errno.ENOSPC


def test_armed_point_raises_an_unexpected_error() -> None:
    with pytest.raises(RuntimeError, match=r"failpoint export\.tempo_estimation"):
        Failpoint("export.tempo_estimation:raise").hit()


@pytest.mark.parametrize("text", ["here", "here:explode", "here:ENOTHING", "here:kill@0", "Here:kill", ":kill"])
def test_invalid_specification_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="must be POINT:kill, POINT:stop, POINT:raise or POINT:ERRNO"):
        Failpoint(text)


def test_unarmed_point_does_nothing() -> None:
    failpoint("here.before_it")
