"""Runs `dgx-music` on a terminal of its own, as a person does."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.command_line import DGX_MUSIC, SECONDS, environment

STYLES = re.compile(r"\x1b\[[0-9;]*m")
"""Colours and weights."""
DRAWING = re.compile(r"\x1b\[(?:[0-9;]*[mAK]|\?25[lh]|\?1049[lh]|H|2?J)")
"""What Rich itself sends: colours, and how a progress bar is drawn again."""


@dataclass(frozen=True)
class Screen:
    """What a command has written to its terminal, standard output and error together."""

    status: int
    raw: bytes

    @property
    def text(self) -> str:
        """The characters without colours, with the line ends of a file."""
        return STYLES.sub("", self.raw.decode()).replace("\r\n", "\n")

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.text.splitlines()]


@contextmanager
def started(
    *arguments: str | Path, columns: int = 80, term: str = "xterm-256color", **settings: str
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Starts a command on a terminal, and yields its process and the terminal's other end."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    inherited = {name: value for name, value in environment().items() if name not in ("COLUMNS", "NO_COLOR", "LC_ALL")}
    with subprocess.Popen(
        ["setsid", "--ctty", DGX_MUSIC, *arguments],  # Its controlling terminal, so that Ctrl-C arrives as a signal.
        env=inherited | {"LANG": "C.UTF-8", "TERM": term} | settings,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        try:
            yield process, ours
        finally:
            process.kill()
            os.close(ours)


def read_all(terminal: int) -> bytes:
    """Reads until the process at the other end has ended."""
    written = b""
    while True:
        try:
            some = os.read(terminal, 65536)
        except OSError:  # EIO: the other end is closed.
            return written
        if not some:
            return written
        written += some


def on_terminal(*arguments: str | Path, columns: int = 80, term: str = "xterm-256color", **settings: str) -> Screen:
    """Runs a command on a terminal to its end."""
    with started(*arguments, columns=columns, term=term, **settings) as (process, terminal):
        written = read_all(terminal)
        return Screen(process.wait(SECONDS), written)
