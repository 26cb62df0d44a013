"""What `models pull` checks before it downloads."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from gateway.cli.commands import model_download
from gateway.cli.display.console import Console
from gateway.cli.session.command_errors import CommandError

INSTALL = f"{shlex.quote(sys.executable)} -m pip install 'dgx-music[musicgen]'"
"""For the Python that runs the tests, which the `pip` on PATH need not belong to."""


def test_pull_without_huggingface_hub_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CommandError) as caught:
        model_download.pull("musicgen-small", Console())
    assert INSTALL in str(caught.value)


def test_pull_without_disk_space_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="free up disk space"):
        model_download.require_space(tmp_path / "not" / "existing", 10**18)
