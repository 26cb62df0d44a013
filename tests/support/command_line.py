"""`dgx-music` as a person runs it: real processes, a data directory of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from google.protobuf import json_format

from dgx_music.storage.v1 import storage_pb2 as storage

DGX_MUSIC = Path(sys.executable).with_name("dgx-music")
SECONDS = 120.0
"""Longest that a command may take here."""


def environment(**settings: str) -> dict[str, str]:
    """This process's, without settings of the person who runs the tests, and without that person's models and GPU."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DGX_MUSIC_", "HF_"))}
    return kept | {"HF_HOME": "/nonexistent", "DGX_MUSIC_DEVICE": "cpu"} | settings


class Shell:
    """Runs commands on one data directory."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir

    def run(self, *arguments: str, status: int = 0, **settings: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [DGX_MUSIC, "--data-dir", self.data_dir, *arguments],
            env=environment(**settings),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == status, done.stderr
        return done

    def error(self, *arguments: str, status: int, **settings: str) -> str:
        """The one line that a command which can't be done says."""
        done = self.run(*arguments, status=status, **settings)
        assert done.stdout == ""
        [line] = done.stderr.splitlines()
        assert line.startswith("error: ")
        return line

    def generations(self, *arguments: str, status: int = 0, **settings: str) -> list[storage.Generation]:
        """What a command with --json prints."""
        done = self.run(*arguments, "--json", status=status, **settings)
        return [json_format.Parse(line, storage.Generation()) for line in done.stdout.splitlines()]

    @contextmanager
    def running(self, *arguments: str, **settings: str) -> Iterator[subprocess.Popen[str]]:
        """A command that goes on; killed at the end if it still does."""
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


def line_with(text: str, process: subprocess.Popen[str]) -> str:
    """Reads its standard error up to the line that holds the text."""
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return line
    raise AssertionError(f"it ended without saying {text!r}")
