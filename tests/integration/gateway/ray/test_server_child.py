"""The child process of an actor, and its ports: real processes, which are killed."""

from __future__ import annotations

import queue
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from gateway.ray.child_process import BAD_SETTING, LAUNCHER, ChildProcess
from gateway.ray.port_reservation import PortReservation
from tests.support.command_line import environment
from tests.support.processes import free_ports

ROOT = Path(__file__).parents[4]
WEB_SERVER = ("http.server", ("0", "--bind", "127.0.0.1"))
"""A server that ends when it is told to."""
PARENT = f"""
import time
from gateway.ray.child_process import ChildProcess
print(ChildProcess("{WEB_SERVER[0]}", {WEB_SERVER[1]}, lambda status, seconds: None).pid, flush=True)
time.sleep(600)
"""


def test_child_does_not_outlive_a_parent_that_is_killed() -> None:
    command = [sys.executable, "-c", PARENT]
    env = environment(PYTHONPATH=str(ROOT))
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        while LAUNCHER in child.cmdline():
            time.sleep(0.01)  # Until it is the server.
        child.suspend()  # Even one that is stopped ends.
        parent.kill()
    child.wait(30)


def test_end_is_told_with_the_status_unless_it_was_asked_for(capfd: pytest.CaptureFixture[str]) -> None:
    ended: queue.Queue[int] = queue.Queue()
    child = ChildProcess("gateway", ("serve", "nothing"), lambda status, seconds: ended.put(status))
    assert ended.get(timeout=60) == BAD_SETTING
    assert "nothing" in child.last_error
    assert "nothing" in capfd.readouterr().err
    child = ChildProcess(*WEB_SERVER, lambda status, seconds: ended.put(status))
    child.stop(30)
    assert not psutil.pid_exists(child.pid)
    assert ended.empty()


def test_child_that_does_not_end_is_killed() -> None:
    child = ChildProcess(*WEB_SERVER, lambda status, seconds: None)
    process = psutil.Process(child.pid)
    process.suspend()
    while process.status() != psutil.STATUS_STOPPED:
        time.sleep(0.01)  # If it has both signals at once, it ends.
    child.stop(0.1)
    assert not process.is_running()


def test_servers_of_a_machine_get_ports_one_after_the_other() -> None:
    first = free_ports(1)[0]
    with closing(PortReservation("127.0.0.1", first)) as one, closing(PortReservation("127.0.0.1", first)) as other:
        assert one.port == first < other.port
    with closing(PortReservation("127.0.0.1", first)) as again:
        assert again.port == first
    with pytest.raises(OSError, match="requested address"):
        PortReservation("192.0.2.77", first)
