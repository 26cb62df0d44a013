"""What `models pull` needs."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from gateway.cli.commands import model_download
from gateway.cli.display.console import Screen
from gateway.cli.session.command_errors import CommandError

INSTALL = f"{shlex.quote(sys.executable)} -m pip install 'dgx-music[musicgen]'"
"""Into this Python, wherever the `pip` on PATH belongs."""


def test_a_pull_without_the_hubs_library_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CommandError) as caught:
        model_download.pull("musicgen-small", Screen())
    assert INSTALL in str(caught.value)


def test_a_pull_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="make room"):
        model_download._require_space(tmp_path / "not" / "there", 10**18)
