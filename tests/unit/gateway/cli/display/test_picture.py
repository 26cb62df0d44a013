"""The requirements of a picture."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gateway.cli.display import picture
from gateway.cli.session.command_errors import CommandError


def test_picture_without_matplotlib_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(CommandError, match=r"pip install 'dgx-music\[pictures\]'"):
        picture.require_drawable(tmp_path / "x.png", overwrite=False)
