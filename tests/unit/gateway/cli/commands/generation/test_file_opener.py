"""--open: with the desktop's program, or a line that says why not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gateway.cli.commands.generation import file_opener
from gateway.cli.commands.generation.file_opener import open_file


@pytest.fixture
def desktop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The program that opens files, which a test writes."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    program = tmp_path / "xdg-open"
    program.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    program.chmod(0o700)
    (tmp_path / "a b.wav").touch()
    return program


def test_file_is_opened(desktop: Path) -> None:
    file = desktop.with_name("a b.wav")
    assert open_file(file) == f"opened {file}"
    assert desktop.with_name("opened").read_text() == f"{file}\n"


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
def test_program_that_keeps_running_has_opened_it(desktop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_opener, "WAIT_SECONDS", 0.01)
    desktop.write_text("#!/bin/sh\nexec sleep 1\n")
    assert open_file(desktop.with_name("a b.wav")).startswith("opened ")


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("#!/bin/sh\nexit 3\n", "not opened: xdg-open found no program for .* \\(status 3\\)"),
        ("#!/nonexistent\n", "not opened: failed to run .*xdg-open: No such file"),
        ("", "not opened: this machine has no xdg-open; install xdg-utils, or open .*a b.wav yourself"),
    ],
)
def test_why_it_is_not_opened_is_told(desktop: Path, monkeypatch: pytest.MonkeyPatch, script: str, says: str) -> None:
    if script:
        desktop.write_text(script)
    else:
        desktop.unlink()
        monkeypatch.setenv("PATH", str(desktop.parent))
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(open_file(desktop.with_name("a b.wav")))


def test_file_on_a_server_is_not_opened(desktop: Path) -> None:
    assert open_file(None) == "not opened: the file is on the server; save it here with --output"
