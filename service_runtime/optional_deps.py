"""How to install the optional dependencies (the extras in pyproject.toml), for error messages."""

from __future__ import annotations

import shlex
import sys


def pip_install_command(*arguments: str) -> str:
    """Returns the command that installs into the running Python, which is not always the one that `pip` belongs to."""
    return shlex.join([sys.executable, "-m", "pip", "install", *arguments])


def install_extra_command(extra: str) -> str:
    """Returns the command that installs the libraries of an extra, e.g. "musicgen"."""
    return pip_install_command(f"dgx-music[{extra}]")
