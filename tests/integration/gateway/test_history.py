"""`dgx-music history`: its filters, its order, and what it says to people and scripts."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta

import pytest

from dgx_music.storage.v1.storage_pb2 import GENERATION_STATE_COMPLETED
from gateway.cli.display.console import Console
from tests.support.command_line import InProcessShell


def test_history_is_searched_filtered_and_limited(shell: InProcessShell) -> None:
    with shell.serving_in_process():
        for prompt in (
            "house at 124 BPM in Eb minor",
            "techno at 130 BPM in A minor",
            "deep house at 118 BPM in C minor",
        ):
            shell.run("generate", prompt, "-d", "0.1")
        newest, middle, oldest = ids = shell.run("history", "--ids").stdout.split()
    with sqlite3.connect(shell.data_dir / "dgx_music.db") as database:
        for days, one in enumerate(ids):
            created_at = (datetime.now(UTC) - timedelta(days=days)).strftime("%Y-%m-%d %H:%M:%S.%f")
            database.execute("UPDATE generations SET created_at = ? WHERE id = ?", (created_at, one))
    yesterday = (datetime.now().astimezone() - timedelta(days=1)).strftime("%Y-%m-%d")

    def found(*arguments: str) -> list[str]:
        return shell.run("history", "--ids", *arguments).stdout.split()

    assert found() == ids
    assert found("HOUSE") == found("--search", "house") == [newest, oldest]
    assert found("--since", "12h") == [newest]
    assert found("--until", "36h") == [oldest]
    assert found("--since", yesterday, "--until", yesterday) == [middle]
    assert found("--state", "failed") == found("--model", "other") == found("--min-rating", "1") == []
    assert found("--min-bpm", "119") == [middle, oldest]
    assert found("--max-bpm", "124", "--key", "D# minor") == [oldest]
    limited = shell.run("history", "--ids", "-n", "2")
    assert limited.stdout.split() == [newest, middle]
    assert limited.stderr == "there are more; show them with --limit 20\n"
    assert shell.run("history", "--ids", "-n", "3").stderr == ""
    assert [one.id for one in shell.generations("history", "-n", "1")] == [newest]
    assert shell.generations("history", "techno")[0].state == GENERATION_STATE_COMPLETED
    table = shell.run("history").stdout
    assert [line.split()[0] for line in table.splitlines()] == ["id", *ids]
    assert Console().width == 80


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--since", "yesterday"), "--since: 'yesterday' is not a valid time; use for example 2h, 3d"),
        (("--until", "2026-13-01"), "--until: '2026-13-01' is not a valid time"),
        (("house", "--search", "jazz"), "give the text to search for once"),
        (("--limit", "0"), "--limit"),
        (("--min-bpm", "90", "--max-bpm", "80"), "--max-bpm: must be at least min_bpm, 90, not 80"),
        (("--key", "H"), '--key: must be a key such as "A minor"'),
    ],
)
def test_arguments_that_make_no_sense_are_refused(shell: InProcessShell, arguments: tuple[str, ...], says: str) -> None:
    assert says in shell.error("history", *arguments, status=2)
