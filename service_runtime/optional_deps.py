"""The package's extras (pyproject.toml), and how to get what they bring."""

from __future__ import annotations

import shlex
import sys


def pip_install_command(*what: str) -> str:
    """The command that installs it beside this very Python, which the `pip` on PATH need not be."""
    return shlex.join([sys.executable, "-m", "pip", "install", *what])


def install_extra_command(name: str) -> str:
    """The command that installs the libraries of an extra, e.g. "musicgen"."""
    return pip_install_command(f"dgx-music[{name}]")
