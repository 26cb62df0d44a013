"""Progress on standard error, and results where standard output is taken by a file."""

from __future__ import annotations

import io
import json
from datetime import datetime

import pytest
from rich.cells import cell_len

from dgx_music.storage.v1.storage_pb2 import (
    GENERATION_STAGE_GENERATING,
    GENERATION_STATE_PENDING,
    GENERATION_STATE_PROCESSING,
    Generation,
)
from gateway.cli.display.console import Console, ProgressBars, can_redraw, escape_text, format_retry, truncate
from gateway.cli.session.command_errors import CommandError


def generation(**fields: object) -> Generation:
    return Generation(id="a", prompt="house", duration_seconds=4, attempt=1, **fields)


CHANGES = [
    generation(state=GENERATION_STATE_PROCESSING, stage=GENERATION_STAGE_GENERATING, progress=0.5),
    generation(state=GENERATION_STATE_PENDING, error_message="export: the disk [x] is full"),
    generation(state=GENERATION_STATE_PENDING, error_message="export: the disk [x] is full"),
    generation(state=GENERATION_STATE_PROCESSING, stage=GENERATION_STAGE_GENERATING, progress=0.1),
]
RETRY = "a: attempt 1 failed, trying again: export: the disk [x] is full"


def test_lines_say_why_an_attempt_is_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    with Console().progress() as progress:
        for change in CHANGES:
            progress.update(change)
    assert capsys.readouterr().err.splitlines() == ["a: generating", RETRY, "a: generating"]


def test_bars_say_why_an_attempt_is_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBars(Console().err) as progress:
        for change in CHANGES:
            progress.update(change)
    assert capsys.readouterr().err.count(RETRY) == 1


def test_wait_for_another_attempt_is_told_in_local_time() -> None:
    due = datetime(2026, 11, 29, 12, 34, 56).astimezone()
    waiting = generation(state=GENERATION_STATE_PENDING, error_message="disk full", not_before=due)
    assert format_retry(waiting) == "a: attempt 1 failed, trying again at 12:34:56: disk full"


def test_results_go_to_standard_error_if_a_file_takes_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    Console(out_is_taken=True).print_fields([("loudness", "-16.0 LUFS")])
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.split() == ["loudness", "-16.0", "LUFS"]


ID = "1b4e28ba-2fa1-41d2-883f-0016d3cca427"
COLUMNS = (("id", False), ("state", False), ("created", False), ("prompt", True))
ROW = (ID, "[green]completed[/]", "2026-11-29 11:15:01", "a prompt of more characters than a narrow terminal has")


@pytest.mark.parametrize(("width", "prompt"), [(80, "a prompt …"), (10_000, ROW[3])])
def test_tables_truncate_only_what_nobody_copies(width: int, prompt: str, capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.out.width = width
    console.print_table(COLUMNS, [ROW])
    line = capsys.readouterr().out.splitlines()[1]
    assert line.split("  ") == [ID, "completed", ROW[2], prompt]


def test_rows_become_paragraphs_on_a_narrow_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.out.width = 40
    console.print_table(COLUMNS, [ROW, (ID, "", "", "日本" * 60)])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[:4] == [
        ID,
        "  state completed, created 2026-11-29",
        "  11:15:01, prompt a prompt of more",
        "  characters than a narrow terminal has",
    ]
    assert lines[4] == ID
    assert lines[5] == "  prompt"
    assert all(cell_len(line) <= 40 for line in lines)
    assert lines[-1].endswith("…")


def test_fields_wrap_between_words_and_keep_paths_whole(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.out.width = 40
    path = f"/data/outputs/2026/11/29/{ID}.wav"
    console.print_fields(
        [("file", path), ("peak", "11.7 LU above the loudness of the file"), ("none", ""), ("日本", "x")]
    )
    assert capsys.readouterr().out.splitlines() == [
        f"file  {path}",
        "peak  11.7 LU above the loudness of the",
        "      file",
        "日本  x",
    ]


EVIL = "a\x1b[31mred\x1b]0;title\x07\x9b2J\u202egnp\u202c\r\nnew [bold]b[/]\x7f"
CLEAN = "a\ufffd[31mred\ufffd]0;title\ufffd\ufffd2Jgnp  new [bold]b[/]\ufffd"


def test_no_way_to_print_lets_control_characters_through(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.print_line(EVIL)
    console.print_fields([("name", escape_text(EVIL))])
    console.print_table([("title", False)], [[escape_text(EVIL)]])
    console.print_notice(EVIL)
    console.print_error(EVIL)
    with console.optional("print"):
        raise ValueError(EVIL)
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [CLEAN, f"name  {CLEAN}", "title".ljust(len(CLEAN)), CLEAN]
    notice, error, optional = captured.err.splitlines()
    assert notice == CLEAN
    assert error == f"error: {' '.join(CLEAN.split())}"
    assert "ValueError: a\ufffd[31mred" in optional


def test_text_that_nobody_made_printable_is_so_at_the_latest_when_it_is_drawn(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Console().out.print(EVIL, markup=False)
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "\x9b" not in printed
    assert "\u202e" not in printed


def test_json_is_ascii_without_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(as_json=True)
    console.print_message(Generation(prompt=EVIL))
    console.print_object({"prompt": EVIL})
    assert console.print_error(CommandError(EVIL, 2)) == 2
    captured = capsys.readouterr()
    lines = [*captured.out.splitlines(), *captured.err.splitlines()]
    assert all(line.isascii() and line.isprintable() for line in lines)
    assert [json.loads(line).get("prompt") for line in lines] == [EVIL, EVIL, None]
    assert json.loads(lines[2])["error"]["code"] == "INVALID_ARGUMENT"


def test_labels_are_cut_by_columns_of_the_terminal() -> None:
    assert truncate("日本の音楽", 10) == "日本の音楽"
    assert truncate("日本の音楽", 9) == "日本の音…"
    assert truncate("house", 5) == "house"


@pytest.mark.parametrize(("term", "redraws"), [("xterm", True), ("dumb", False), ("unknown", False)])
def test_a_dumb_terminal_gets_no_progress_bars(term: str, redraws: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", term)
    assert can_redraw(Terminal()) == redraws
    assert not can_redraw(io.StringIO())
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert not can_redraw(io.StringIO())
