"""`dgx-music top` and `doctor` at a server with two engines."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.command_line import SECONDS, InProcessShell, Shell, environment, read_until

COMMAND = "from gateway.cli.main import main; main()"


@pytest.fixture
def shell(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> InProcessShell:
    return InProcessShell(tmp_path / "data", capfd)


@contextmanager
def top_in_a_terminal(data_dir: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Runs `dgx-music top` in a terminal of 80 columns, and gives the process and its keyboard and screen."""
    ours, theirs = pty.openpty()
    settings = environment(TERM="xterm", COLUMNS="80", LINES="24")
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, "--data-dir", data_dir, "top"],
        **dict.fromkeys(("stdin", "stdout", "stderr"), theirs),
        env=settings,
        start_new_session=True,
        preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)),  # The terminal of the new session.
    ) as process:
        os.close(theirs)
        try:
            yield process, ours
        finally:
            process.kill()
            os.close(ours)


def read_screen(terminal: int, text: str) -> str:
    """Reads up to the text."""
    seen = ""
    while text not in seen:
        assert select.select([terminal], [], [], SECONDS)[0], seen
        seen += os.read(terminal, 4096).decode(errors="replace")
    return seen


@pytest.mark.slow
def test_engines_of_a_running_server_are_shown(shell: InProcessShell) -> None:
    data_dir = shell.data_dir
    with Shell(data_dir).running("serve", "--devices", "cpu,cpu", DGX_MUSIC_GATEWAY_ADDRESS="127.0.0.1:0") as server:
        read_until("serving_again", server)
        lines = shell.run("top").stdout.splitlines()
        assert lines[0].startswith("2/2 engines serving   0 running   0 waiting")
        assert [line for line in lines if line.startswith("cpu:")] == ["cpu:0  serving", "cpu:1  serving"]
        assert "no requests" in lines
        status = json.loads(shell.run("top", "--json", "--once").stdout)
        assert [engine["device"] for engine in status["engines"]] == ["cpu:0", "cpu:1"]
        assert status["max_batch_size"] == 16
        findings = json.loads(shell.run("doctor", "--json").stdout)["findings"]
        running = [finding["found"] for finding in findings if finding["name"] == "running engine"]
        assert [found.partition(" at ")[0] for found in running] == ["cpu:0", "cpu:1"]
        assert all(found.endswith("serving, 0 running, 0 waiting") for found in running)
        for key in (b"q", b"\x03"):  # Ctrl-C
            with top_in_a_terminal(data_dir) as (process, terminal):
                assert "2/2 engines serving" in read_screen(terminal, "no requests")
                os.write(terminal, key)
                read_screen(terminal, "\x1b[?1049l")  # The screen is as it was.
                assert process.wait(SECONDS) == 0
        with top_in_a_terminal(data_dir) as (process, terminal):
            read_screen(terminal, "no requests")
            server.terminate()
            server.communicate()
            assert "the server does not respond" in read_screen(terminal, "no requests")
            os.write(terminal, b"q")
            read_screen(terminal, "\x1b[?1049l")
            assert process.wait(SECONDS) == 0


def test_without_a_server_there_is_nothing_to_watch(shell: InProcessShell) -> None:
    line = shell.error("top", status=1)
    assert "no dgx-music server is running; start `dgx-music serve`, or set DGX_MUSIC_GATEWAY_ADDRESS" in line


def test_invalid_devices_are_a_bad_setting(shell: InProcessShell) -> None:
    line = shell.error("serve", "--devices", "gpu", status=2)
    assert "DGX_MUSIC_DEVICES=gpu: use auto, all, cpu" in line


def test_devices_of_a_service_without_any_are_bad_input(shell: InProcessShell) -> None:
    assert "--devices: storage uses none" in shell.error("serve", "storage", "--devices", "cpu", status=2)
