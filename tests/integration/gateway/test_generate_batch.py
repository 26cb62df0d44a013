"""`generate --file`: many generations with real services, broken off and run again."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from dgx_music.errors import FailedPrecondition, ResourceExhausted, Unavailable
from dgx_music.storage.v1 import storage_pb2 as storage
from gateway.cli.commands.batch import generate_batch, server_patience
from gateway.rpc.servicer import MusicServicer
from tests.support.command_line import SECONDS, InProcessShell, Shell, read_until
from tests.support.music_server import KillableServer

SHORT = ("-d", "0.2")


@pytest.fixture
def prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "prompts.txt"


@pytest.fixture
def served(shell: InProcessShell) -> Iterator[InProcessShell]:
    """A command line with a running server."""
    with shell.serving_in_process():
        yield shell


def objects(shell: Shell, *arguments: str, status: int = 0) -> list[dict[str, Any]]:
    """Returns what a batch prints with --json, in the order of the lines."""
    done = shell.run("generate", "--file", *arguments, "--json", status=status)
    return sorted((json.loads(line) for line in done.stdout.splitlines()), key=lambda one: one["line"])


def ids(results: list[dict[str, Any]]) -> list[str]:
    return [one["generation"]["id"] for one in results]


def test_only_what_is_missing_is_generated(served: InProcessShell, prompts: Path) -> None:
    prompts.write_bytes("\ufeffhouse\r\n# jazz\r\nhouse\r\ntechno\r\n".encode())
    first = objects(served, "prompts.txt", *SHORT)
    assert [(one["line"], one["is_new"], one["error"]) for one in first] == [(n, True, None) for n in (1, 3, 4)]
    assert len(set(ids(first))) == 3
    prompts.write_text("rock\nhouse\ntechno, fast\nhouse\n")
    second = objects(served, "prompts.txt", *SHORT)
    assert [one["is_new"] for one in second] == [True, False, True, False]
    assert [ids(second)[1], ids(second)[3]] == ids(first)[:2]
    assert len(served.generations("history")) == 5
    done = served.run("generate", "--file", "prompts.txt", *SHORT)
    assert "4 of 4 done, 4 of them by an earlier run" in done.stderr
    assert "add: --run NAME" in done.stderr
    assert [one["is_new"] for one in objects(served, "prompts.txt", *SHORT, "--run", "b")] == [True] * 4


def test_files_are_saved_once_under_readable_names(served: InProcessShell, prompts: Path) -> None:
    table = prompts.with_suffix(".csv")
    table.write_text('prompt,seed,output\n"say ""hi""; now",1,\nhouse,,sub/a.flac\ntechno,3,\ntechno,3,\n')
    arguments = ("--file", "prompts.csv", *SHORT, "--output-dir", "out", "--name", "{prompt} {seed}")
    served.run("generate", *arguments)
    saved = {str(path.relative_to(prompts.parent / "out")) for path in (prompts.parent / "out").rglob("*.*")}
    assert saved == {"say _hi_; now 1.wav", "sub/a.flac", "techno 3.wav", "techno 3 (2).wav"}
    (prompts.parent / "out/sub/a.flac").unlink()
    (prompts.parent / "out/techno 3.wav").write_bytes(b"of the user")
    done = served.run("generate", *arguments)
    assert sorted(Path(line).name for line in done.stdout.splitlines()) == [
        "a.flac",
        "say _hi_; now 1.wav",
        "techno 3 (2).wav",
        "techno 3 (3).wav",
    ]
    assert (prompts.parent / "out/techno 3.wav").read_bytes() == b"of the user"
    assert len(served.generations("history")) == 4


def test_output_is_not_overwritten_unless_told_to(served: InProcessShell, prompts: Path) -> None:
    prompts.with_suffix(".jsonl").write_text('{"prompt": "house", "output": "a.wav"}\n')
    taken = prompts.parent / "a.wav"
    taken.write_bytes(b"of the user")
    [one] = objects(served, "prompts.jsonl", *SHORT, status=1)
    assert one["error"] == f"output: {taken} already exists with other content; use --force to overwrite it"
    assert taken.read_bytes() == b"of the user"
    assert [each.state for each in served.generations("history")] == [storage.GENERATION_STATE_CANCELLED]
    [one] = objects(served, "prompts.jsonl", *SHORT, "--force")
    assert one["path"] == str(taken)
    assert taken.read_bytes().startswith(b"RIFF")
    [one] = objects(served, "prompts.jsonl", *SHORT)
    assert (one["is_new"], one["path"]) == (False, str(taken))


def test_line_that_fails_does_not_stop_the_others(
    shell: InProcessShell, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = MusicServicer.CreateGeneration

    async def refuse_techno(self: MusicServicer, request: Any, context: Any) -> Any:
        if request.prompt == "techno":
            raise FailedPrecondition("no techno here", reason="NO_TECHNO")
        return await create(self, request, context)

    monkeypatch.setattr(MusicServicer, "CreateGeneration", refuse_techno)
    prompts.write_text("house\ntechno\nrock\n")
    with shell.serving_in_process():
        done = shell.run("generate", "--file", "prompts.txt", *SHORT, status=1)
    assert "error: prompts.txt:2: no techno here" in done.stderr
    assert "prompts.txt: 2 of 3 done, 1 failed, in 0:0" in done.stderr
    assert len(done.stdout.splitlines()) == 2
    monkeypatch.undo()
    os.chdir(prompts.parent)
    assert [one["is_new"] for one in objects(shell, "prompts.txt", *SHORT)] == [False, True, False]


def test_full_server_is_asked_again_when_it_says(
    shell: InProcessShell, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create, refused = MusicServicer.CreateGeneration, []

    async def refuse_every_other(self: MusicServicer, request: Any, context: Any) -> Any:
        if len(refused) < 20 and request.request_id not in refused:
            refused.append(request.request_id)
            raise ResourceExhausted("the queue is full", reason="QUEUE_FULL", retry_after_seconds=0.05)
        return await create(self, request, context)

    monkeypatch.setattr(MusicServicer, "CreateGeneration", refuse_every_other)
    prompts.write_text("house\ntechno\nrock\n")
    with shell.serving_in_process():
        done = shell.run("generate", "--file", "prompts.txt", *SHORT)
    assert len(refused) == 3
    assert "the queue is full; asking again in 0:00" in done.stderr
    assert "3 of 3 done" in done.stderr


def test_unfinished_ones_are_bounded(shell: InProcessShell, prompts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate_batch, "MAX_UNFINISHED", 2)
    create, unfinished = MusicServicer.CreateGeneration, []

    async def count(self: MusicServicer, request: Any, context: Any) -> Any:
        states = [storage.GENERATION_STATE_PENDING, storage.GENERATION_STATE_PROCESSING]
        response = await create(self, request, context)
        listed = await self.ListGenerations(storage.ListGenerationsRequest(states=states), context)
        unfinished.append(len(listed.generations))
        return response

    monkeypatch.setattr(MusicServicer, "CreateGeneration", count)
    prompts.write_text("house\n" * 6)
    with shell.serving_in_process():
        shell.run("generate", "--file", "prompts.txt", "-d", "3")
    assert len(unfinished) == 6
    assert max(unfinished) <= 2


def test_failed_ones_of_an_earlier_run_are_tried_again(served: InProcessShell, prompts: Path) -> None:
    prompts.write_text("house\n")
    [first] = objects(served, "prompts.txt", *SHORT)
    with sqlite3.connect(served.data_dir / "dgx_music.db") as database:
        set_status = "UPDATE generations SET status = 'failed' WHERE id = ?"
        assert database.execute(set_status, (first["generation"]["id"],)).rowcount == 1
    [second] = objects(served, "prompts.txt", *SHORT)
    assert second["is_new"]
    assert ids([second]) == ids([first])
    assert second["generation"]["state"] == "GENERATION_STATE_COMPLETED"


def test_killed_batch_goes_on(prompts: Path, shell: InProcessShell) -> None:
    prompts.write_text("".join(f"house at {100 + n} BPM\n" for n in range(20)))
    arguments = ("generate", "--file", "prompts.txt", "-d", "0.5", "--output-dir", "out")
    with Shell(shell.data_dir).running(*arguments, DGX_MUSIC_LEASE_SECONDS="1") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
        process.wait(SECONDS)
    done = shell.run(*arguments)
    assert "of them by an earlier run" in done.stderr
    assert len(list((prompts.parent / "out").glob("*.wav"))) == 20
    assert [one.state for one in shell.generations("history")] == [storage.GENERATION_STATE_COMPLETED] * 20


@pytest.mark.slow
def test_interrupted_batch_is_cancelled_and_generated_by_the_next_run(prompts: Path, served: InProcessShell) -> None:
    prompts.with_suffix(".csv").write_text("prompt,duration\nhouse,0.2\njazz,60\n")
    with Shell(served.data_dir).running("generate", "--file", "prompts.csv") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        assert process.wait(SECONDS) == 130
    assert "cancelled 1 of the generations\n1 of 2 done; run the same command again to continue\ninterrupted\n" in said
    assert [one.state for one in served.generations("history")] == [
        storage.GENERATION_STATE_CANCELLED,
        storage.GENERATION_STATE_COMPLETED,
    ]
    results = objects(served, "prompts.csv")
    assert [(one["is_new"], one["generation"]["state"]) for one in results] == [
        (False, "GENERATION_STATE_COMPLETED"),
        (True, "GENERATION_STATE_COMPLETED"),
    ]


@pytest.mark.slow
def test_batch_goes_on_when_its_server_comes_back(prompts: Path) -> None:
    prompts.write_text("".join(f"house at {100 + n} BPM\n" for n in range(8)))
    shell = Shell(prompts.parent / "data")
    server = KillableServer(shell.data_dir, DGX_MUSIC_LEASE_SECONDS="4")
    server.start()
    remote = {"DGX_MUSIC_GATEWAY_ADDRESS": server.address}
    with shell.running("generate", "--file", "prompts.txt", "-d", "4", **remote) as batch:
        assert batch.stdout is not None
        batch.stdout.readline()
        server.kill()
        read_until("lost the connection to the server; waiting for it to come back", batch)
        server.start()
        output, error = batch.communicate(timeout=SECONDS)
    server.kill()
    assert batch.returncode == 0, error
    assert len(output.splitlines()) == 7
    assert "prompts.txt: 8 of 8 done, in" in error


def test_server_that_stays_away_ends_the_batch(
    shell: InProcessShell, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_patience, "RECONNECT_SECONDS", 0.1)
    monkeypatch.setattr(server_patience, "PAUSE_SECONDS", 0.1)
    calls = []

    async def vanish(self: MusicServicer, request: Any, context: Any) -> Any:
        calls.append(request)
        context.set_code(grpc.StatusCode.UNAVAILABLE)  # Without a status, as if gRPC itself reported it.

    monkeypatch.setattr(MusicServicer, "CreateGeneration", vanish)
    prompts.write_text("house\n")
    with shell.serving_in_process():
        done = shell.run("generate", "--file", "prompts.txt", *SHORT, status=75)
    assert len(calls) > 1
    assert "0 of 1 done; run the same command again to continue" in done.stderr
    assert "whose services this command used, has ended; run the command again" in done.stderr


def test_what_is_completed_is_recognized_without_a_call_for_each(
    shell: InProcessShell, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create, created = MusicServicer.CreateGeneration, []

    async def note(self: MusicServicer, request: Any, context: Any) -> Any:
        created.append(request.prompt)
        return await create(self, request, context)

    monkeypatch.setattr(MusicServicer, "CreateGeneration", note)
    prompts.write_text("house\ntechno\nhouse\n")
    with shell.serving_in_process():
        first = objects(shell, "prompts.txt", *SHORT)
        prompts.write_text("house\ntechno\nhouse\njazz\n")
        second = objects(shell, "prompts.txt", *SHORT)
    assert ids(second)[:3] == ids(first)
    assert [one["is_new"] for one in second] == [False, False, False, True]
    assert sorted(created) == ["house", "house", "jazz", "techno"]


def test_error_of_all_lines_ends_the_batch_and_says_how_to_go_on(
    shell: InProcessShell, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(self: MusicServicer, request: Any, context: Any) -> Any:
        raise Unavailable("the database is gone", reason="DATABASE_UNAVAILABLE", retry_after_seconds=1)
        yield  # It is a stream.

    monkeypatch.setattr(MusicServicer, "WatchGeneration", fail)
    prompts.write_text("house\njazz\n")
    with shell.serving_in_process():
        done = shell.run("generate", "--file", "prompts.txt", *SHORT, status=75)
    assert done.stderr == "0 of 2 done; run the same command again to continue\nerror: the database is gone\n"
