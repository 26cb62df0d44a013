"""Colours, characters and widths on terminals of several kinds, and in pipes."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from rich.cells import cell_len

from tests.support.command_line import Shell
from tests.support.terminals import STYLES, on_terminal, read_all, started

PROMPT = "日本の techno \U0001f3b5 with a prompt that is longer than the terminal is wide"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data directory with a server, which saves each command the start of its own services."""
    shell = Shell(tmp_path_factory.mktemp("data"))
    with shell.serving():
        yield shell.data_dir


@pytest.mark.slow
def test_a_narrow_terminal_shows_everything_within_its_width(data_dir: Path) -> None:
    screen = on_terminal("--data-dir", data_dir, "generate", PROMPT, "-d", "0.5", columns=40)
    assert screen.status == 0
    summary = screen.text.rpartition("\x1b[2K")[2].splitlines()
    wide = [line for line in summary if cell_len(line) > 40]
    assert all("/outputs/" in line or re.search("id +[0-9a-f-]{36}$", line) for line in wide)  # Kept whole, to copy.
    drawn = re.findall(r"\x1b\[2K([^\x1b\r\n]*)", screen.text)
    assert max(map(cell_len, drawn[:-1])) <= 40
    lines = on_terminal("--data-dir", data_dir, "files", "list", columns=40).lines
    assert re.fullmatch("[0-9a-f-]{36}", lines[0])
    assert all(cell_len(line) <= 40 for line in lines)


@pytest.mark.parametrize(
    ("term", "settings", "has_colours"),
    [("xterm", {}, True), ("xterm", {"NO_COLOR": "1"}, False), ("dumb", {}, False)],
)
@pytest.mark.slow
def test_colours_are_for_terminals_that_have_them(
    term: str, settings: dict[str, str], has_colours: bool, data_dir: Path
) -> None:
    raw = on_terminal("--data-dir", data_dir, "generate", PROMPT, "-d", "0.5", term=term, **settings).raw
    assert bool(re.search(rb"\x1b\[(?:\d+;)*3\dm", raw)) == has_colours
    if term == "dumb":
        assert b"\x1b" not in raw


def test_a_pipe_gets_colours_only_on_request_and_never_progress_bars(data_dir: Path) -> None:
    shell = Shell(data_dir)
    done = shell.run("generate", PROMPT, "-d", "0.5", FORCE_COLOR="1", TERM="xterm-256color")
    assert STYLES.search(done.stdout)
    assert "\x1b[2K" not in done.stderr
    assert "\x1b[?25l" not in done.stderr
    done = shell.run("prompts")
    assert "\x1b" not in done.stdout
    assert PROMPT in done.stdout  # In one line.


@pytest.mark.parametrize("settings", [{"LANG": "C"}, {"PYTHONIOENCODING": "latin-1"}], ids=str)
def test_a_terminal_without_utf8_gets_similar_characters(settings: dict[str, str], data_dir: Path) -> None:
    screen = on_terminal("--data-dir", data_dir, "generate", PROMPT, "-d", "0.5", **settings)
    shown = STYLES.sub("", screen.raw.decode("latin-1"))
    assert screen.status == 0
    assert "techno" in shown
    assert re.search(r"^[ '.|]{80}\r$", shown, re.MULTILINE)  # The waveform.
    assert "latin" in str(settings) or shown.isascii()


def press_ctrl_c(process: subprocess.Popen[bytes], terminal: int) -> None:
    """Again, if need be: Python's `input` misses a signal between its question and its wait for the answer."""
    for _ in range(20):
        os.write(terminal, b"\x03")
        with suppress(subprocess.TimeoutExpired):
            process.wait(2)
            return


def test_ctrl_c_ends_a_question_with_one_line(data_dir: Path, tmp_path: Path) -> None:
    for words, prompt in ((("config", "set", "token", "-"), b"token: "), (("files", "delete", "x"), b"[y/N]")):
        with started("--data-dir", data_dir, *words, DGX_MUSIC_CONFIG=str(tmp_path / "c.toml")) as (process, terminal):
            seen = b""
            while prompt not in seen:
                seen += os.read(terminal, 1024)
            press_ctrl_c(process, terminal)
            seen += read_all(terminal)
            assert process.wait(60) == 130
            assert seen.endswith(b"\r\ninterrupted\r\n")
            assert b"Traceback" not in seen
    assert not (tmp_path / "c.toml").exists()
