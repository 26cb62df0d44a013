"""A server that is killed in the middle of a command: one line that says so, the exit status, and no file."""

from __future__ import annotations

import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from gateway.cli.session.command_errors import TRY_AGAIN
from tests.support.command_line import SECONDS, Shell, read_until
from tests.support.processes import free_ports


@pytest.mark.slow
def test_every_kind_of_command_says_that_the_server_is_gone(tmp_path: Path) -> None:
    shell, address = Shell(tmp_path / "data"), f"127.0.0.1:{free_ports(1)[0]}"
    remote = {"DGX_MUSIC_GATEWAY_ADDRESS": address}
    with ExitStack() as stack:
        server = stack.enter_context(shell.running("serve", **remote))
        read_until('"serving"', server)
        [finished] = shell.generations("generate", "techno", "-d", "20", **remote)
        following = stack.enter_context(shell.running("generate", "house", "-d", "3600", **remote))
        generation_id = read_until("generating", following).partition(":")[0]
        watching = stack.enter_context(shell.running("watch", generation_id, **remote))
        read_until("generating", watching)
        asking = stack.enter_context(shell.running("top", "--json", **remote))
        assert asking.stdout is not None
        asking.stdout.readline()
        downloading = stack.enter_context(shell.running("download", finished.id, "-o", "-", **remote))
        assert downloading.stdout is not None
        downloading.stdout.buffer.read(4)  # The rest is more than the buffers between the two hold.
        copies = tmp_path / "copies"
        copies.mkdir()
        saving = stack.enter_context(shell.running("download", finished.id, "-o", str(copies / "copy.wav"), **remote))
        stop_half_way(saving, copies)
        server.kill()
        server.wait(SECONDS)
        saving.send_signal(signal.SIGCONT)
        goes_on = f"go on with: dgx-music watch {generation_id}"
        again = "run the command again"
        for command, way_on in (
            (following, goes_on),
            (watching, goes_on),
            (asking, again),
            (downloading, again),
            (saving, again),
        ):
            error = drain(command)
            assert command.returncode == TRY_AGAIN, error
            assert f"lost the connection to the server at {address}; {way_on}" in error.splitlines()[-1]
            assert "Traceback" not in error
        assert list(copies.iterdir()) == []
        copies.rmdir()
    line = shell.error("download", finished.id, "-o", str(tmp_path / "copy.wav"), status=TRY_AGAIN, **remote)
    assert line.startswith(f"error: no server listens at {address}; set DGX_MUSIC_GATEWAY_ADDRESS")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def stop_half_way(command: subprocess.Popen[str], folder: Path) -> None:
    """Stops the command while it writes a file in the folder."""
    while not any(part.stat().st_size for part in folder.iterdir()):
        assert command.poll() is None
    command.send_signal(signal.SIGSTOP)
    assert [part.suffix for part in folder.iterdir()] == [".part"]


def drain(command: subprocess.Popen[str]) -> str:
    """Reads the binary output to its end, and returns standard error."""
    assert command.stdout is not None
    assert command.stderr is not None
    while command.stdout.buffer.read(65536):
        pass
    error = command.stderr.read()
    command.wait(SECONDS)
    return error
