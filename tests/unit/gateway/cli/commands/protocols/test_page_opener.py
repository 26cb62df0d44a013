"""The browser, and machines that have none."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from gateway.cli.commands.protocols.page_opener import open_page

URL = "http://127.0.0.1:8090"
pytestmark = pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="they have a browser of the system")


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file into which this desktop writes what it is asked to open."""
    opener, written = tmp_path / "xdg-open", tmp_path / "opened"
    opener.write_text(f'#!/bin/sh\nprintf %s "$1" > {written}\n')
    opener.chmod(opener.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", ":0")
    return written


def test_page_is_opened_by_the_desktop(opened: Path) -> None:
    assert open_page(URL)
    assert opened.read_text() == URL


def test_terminal_alone_starts_no_browser(opened: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", "")
    assert not open_page(URL)
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv("PATH", "/nonexistent")
    assert not open_page(URL)
    assert not opened.exists()
