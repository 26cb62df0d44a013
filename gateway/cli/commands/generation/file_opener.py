"""--open: opens a finished file with the program that the desktop uses for it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

WAIT_SECONDS = 3.0
"""How long the opener may take to fail. If it takes longer, it has found a program."""


def open_file(path: Path | None) -> str:
    """Returns a line that says what was done, or why the file could not be opened: that is no failure. Without a path,
    the file is not on this machine."""
    opener = "open" if sys.platform == "darwin" else "xdg-open"
    program = shutil.which(opener)
    if path is None:
        return "not opened: the file is on the server; save it here with --output"
    if program is None:
        return f"not opened: this machine has no {opener}; install xdg-utils, or open {path} yourself"
    try:
        status = _run(program, path)
    except OSError as error:
        return f"not opened: failed to run {program}: {error.strerror}"
    return f"opened {path}" if status == 0 else f"not opened: {opener} found no program for {path} (status {status})"


def _run(program: str, path: Path) -> int:
    process = subprocess.Popen(
        [program, path],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for this command, not for the player.
    )
    try:
        return process.wait(WAIT_SECONDS)
    except subprocess.TimeoutExpired:
        return 0
