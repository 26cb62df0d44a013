"""Signals that come while no event loop handles them, in processes of their own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

HEAD = "import os, signal\nfrom gateway.cli.session.stop_signals import *\n"
CLEANED_UP = """
raise_on_signal()
try:
    os.kill(os.getpid(), {number})
except Exception:
    print("swallowed")
finally:
    print("cleaned up", flush=True)
    {then}
"""


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", HEAD + program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_the_process_with_its_line(number: int) -> None:
    done = run(f"exit_on_signal(); os.kill(os.getpid(), {number:d}); print('not reached')")
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, "", "interrupted\n")


def test_signal_is_an_object_with_json() -> None:
    done = run(f"exit_on_signal(); os.kill(os.getpid(), {signal.SIGINT:d})", "history", "--json")
    assert json.loads(done.stderr)["error"]["reason"] == "INTERRUPTED"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_first_signal_lets_the_command_clean_up(number: int) -> None:
    done = run(CLEANED_UP.format(number=int(number), then=""))
    assert (done.returncode, done.stdout) == (128 + number, "cleaned up\n")


def test_second_signal_ends_the_process_at_once() -> None:
    again = f"os.kill(os.getpid(), {signal.SIGTERM:d}); print('not reached')"
    done = run(CLEANED_UP.format(number=int(signal.SIGINT), then=again))
    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, "cleaned up\n")


def test_signal_that_is_ignored_stays_ignored() -> None:
    ignored = f"signal.signal({signal.SIGHUP:d}, signal.SIG_IGN); exit_on_signal(); raise_on_signal()\n"
    done = run(f"{ignored}os.kill(os.getpid(), {signal.SIGHUP:d}); print('reached')")
    assert (done.returncode, done.stdout) == (0, "reached\n")
