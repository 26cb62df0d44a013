"""Runs `dgx-music` on a data directory of its own: in processes as a user does, or in the test's process, which is
faster."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest
from google.protobuf import json_format

from dgx_music.storage.v1 import storage_pb2 as storage

DGX_MUSIC = Path(sys.executable).with_name("dgx-music")
SECONDS = 120.0
"""Limit for a command."""


def environment(**settings: str) -> dict[str, str]:
    """Returns the environment of this process without the settings, models and GPU of the user who runs the tests."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("DGX_MUSIC_", "HF_"))}
    defaults = {"HF_HOME": "/nonexistent", "DGX_MUSIC_CONFIG": os.devnull, "DGX_MUSIC_DEVICES": "cpu"}
    return inherited | defaults | settings


class Shell:
    """Runs commands on a data directory, each in a process of its own."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir

    def run(self, *arguments: str, status: int = 0, **settings: str) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end and checks the exit status."""
        done = self._run(["--data-dir", str(self.data_dir), *arguments], environment(**settings))
        assert done.returncode == status, done.stderr
        return done

    def _run(self, arguments: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [DGX_MUSIC, *arguments], env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
        )

    def error(self, *arguments: str, status: int, **settings: str) -> str:
        """Returns the error line, or the object that --json asks for, which must be all that the command prints."""
        done = self.run(*arguments, status=status, **settings)
        assert done.stdout == ""
        line, *others = done.stderr.splitlines()
        assert not others, done.stderr
        assert line.startswith('{"error": ' if "--json" in arguments else "error: ")
        return line

    def generations(self, *arguments: str, status: int = 0, **settings: str) -> list[storage.Generation]:
        """Returns the generations that the command prints with --json."""
        done = self.run(*arguments, "--json", status=status, **settings)
        return [json_format.Parse(line, storage.Generation()) for line in done.stdout.splitlines()]

    @contextmanager
    def running(self, *arguments: str, **settings: str) -> Iterator[subprocess.Popen[str]]:
        """Starts a command in a process, which is killed with the block if it is still running."""
        with subprocess.Popen(
            [DGX_MUSIC, "--data-dir", self.data_dir, *arguments],
            env=environment(**settings),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    @contextmanager
    def serving(self, **settings: str) -> Iterator[subprocess.Popen[str]]:
        """Runs `dgx-music serve` in a process, and stops it with the block; it must end cleanly."""
        with self.running("serve", DGX_MUSIC_GATEWAY_ADDRESS="127.0.0.1:0", **settings) as server:
            read_until('"serving"', server)
            assert server.stderr is not None
            reader = threading.Thread(target=server.stderr.read)  # A full pipe would block the server.
            reader.start()
            yield server
            server.terminate()
            assert server.wait(SECONDS) == 0
            reader.join()


class InProcessShell(Shell):
    """Runs commands in the process of the test, which saves the seconds that their imports take."""

    def __init__(self, data_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
        super().__init__(data_dir)
        self._capfd = capfd

    @contextmanager
    def serving_in_process(self, **settings: str) -> Iterator[None]:
        """Runs the services of `dgx-music serve` in a thread, which saves the import of a model's libraries."""
        from gateway.embedded.ownership import Owner, acquire_or_join
        from gateway.embedded.services import run_embedded_services

        ready, stop = Future[None](), Future[None]()

        async def serve() -> None:
            with acquire_or_join(self.data_dir) as owner:
                assert isinstance(owner, Owner)
                async with run_embedded_services(owner, self.data_dir):
                    owner.accept_clients(is_persistent=True)
                    ready.set_result(None)
                    await asyncio.wrap_future(stop)

        with ThreadPoolExecutor(1) as executor:
            with mock.patch.dict(os.environ, environment(**settings), clear=True):
                served = executor.submit(asyncio.run, serve())
                wait([ready, served], return_when=FIRST_COMPLETED)
            try:
                if not served.done():
                    yield
            finally:
                stop.set_result(None)
            served.result()

    def _run(self, arguments: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        from gateway.cli.invocation import run

        self._capfd.readouterr()
        with mock.patch.dict(os.environ, environment, clear=True):
            status = run(arguments)
        captured = self._capfd.readouterr()
        return subprocess.CompletedProcess(arguments, status, captured.out, captured.err)


def read_until(text: str, process: subprocess.Popen[str]) -> str:
    """Reads the standard error of a process up to the line that contains the text, and returns that line."""
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return line
    raise AssertionError(f"the process ended without printing {text!r}")
