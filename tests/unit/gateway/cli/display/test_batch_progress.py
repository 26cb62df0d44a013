"""The progress of a batch, on a terminal and in a pipe."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console as RichConsole

from dgx_music.storage.v1.storage_pb2 import (
    GENERATION_STAGE_GENERATING,
    GENERATION_STATE_PENDING,
    GENERATION_STATE_PROCESSING,
    Generation,
)
from gateway.cli.display import batch_progress
from gateway.cli.display.batch_progress import MAX_RUNNING_SHOWN, BatchProgress, BatchTally, format_time
from gateway.cli.display.console import Console


def running(number: int) -> Generation:
    return Generation(
        id=str(number),
        prompt=f"[red]prompt {number} with a lot of words",
        duration_seconds=10,
        state=GENERATION_STATE_PROCESSING,
        stage=GENERATION_STAGE_GENERATING,
        progress=0.5,
    )


def test_tally_tells_what_was_there_and_what_failed() -> None:
    assert BatchTally(9, 90).format() == "0 of 9 done"
    assert (
        BatchTally(9, 90, made=3, present=2, failed=1).format() == "5 of 9 done, 2 of them by an earlier run, 1 failed"
    )


def test_pipe_gets_a_line_from_time_to_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(batch_progress.time, "monotonic", lambda: clock[0])
    tally = BatchTally(4, 40)
    with BatchProgress(Console(), tally) as progress:
        for now in (4.0, 10.0, 11.0):
            clock[0] = now
            tally.made += 1
            tally.made_seconds += 10
            progress.update(running(1))
            progress.finish("1")
    assert capsys.readouterr().err == "2 of 4 done, about 0:10 left\n"


def test_json_gets_no_progress(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_progress, "LINE_SECONDS", -1.0)
    with BatchProgress(Console(as_json=True), BatchTally(1, 10)) as progress:
        progress.finish("1")
    assert capsys.readouterr() == ("", "")


def test_terminal_shows_all_and_the_running_ones_within_its_width(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(batch_progress, "can_redraw", lambda stream: True)
    console, tally = Console(), BatchTally(20, 200, failed=1)
    console.err = RichConsole(file=io.StringIO(), force_terminal=True, width=80)
    with BatchProgress(console, tally) as progress:
        progress.update(Generation(id="0", prompt="waits", state=GENERATION_STATE_PENDING))
        for number in range(1, MAX_RUNNING_SHOWN + 3):
            progress.update(running(number))
        print("a result")
        assert progress._bars is not None
        progress._bars._progress.refresh()
        tally.made += 1
        progress.finish("1")
    assert capsys.readouterr().out == "a result\n", "results do not go to standard error"
    shown = console.err.file.getvalue()  # type: ignore[attr-defined]
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown).replace("\r", "\n").split("\n")
    assert max(map(len, lines)) <= 80
    assert any(re.match(r"1/20 .*1 failed, about \d+:\d\d left", line) for line in lines)
    assert any(line.startswith("[red]prompt 8 with a lo") and "generating" in line for line in lines)
    assert not any("prompt 9 " in line or "waits" in line for line in lines)


def test_times() -> None:
    assert [format_time(seconds) for seconds in (0.4, 61, 3720)] == ["0:00", "1:01", "1:02:00"]
