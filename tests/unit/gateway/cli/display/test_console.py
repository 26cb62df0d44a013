"""Progress on standard error, and results where standard output is taken by a file."""

from __future__ import annotations

from datetime import datetime

import pytest

from dgx_music.storage.v1.storage_pb2 import (
    GENERATION_STAGE_GENERATING,
    GENERATION_STATE_PENDING,
    GENERATION_STATE_PROCESSING,
    Generation,
)
from gateway.cli.display.console import Console, ProgressBars, format_retry


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


@pytest.mark.parametrize(("width", "prompt"), [(40, ROW[3][:23] + "…"), (80, "a prompt …"), (10_000, ROW[3])])
def test_tables_truncate_only_what_nobody_copies(width: int, prompt: str, capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.out.width = width
    console.print_table(COLUMNS, [ROW])
    line = capsys.readouterr().out.splitlines()[1]
    assert line.split("  ") == [ID, "completed", ROW[2], prompt]
