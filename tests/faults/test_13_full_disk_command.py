"""Fault 13 from the command line: the disk of the data directory becomes full. A command says so and ends, what it has
created is kept, and is done once there is room."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from gateway.cli.session.command_errors import TRY_AGAIN
from tests.support.command_line import SECONDS, InProcessShell, Shell, read_until

pytestmark = pytest.mark.slow


def fill(disk: Path, *, free_bytes: int = 0) -> Path:
    """Fills the disk with a file; returns its path."""
    path, status = disk / "filler", os.statvfs(disk)
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_bsize - free_bytes)
    return path


def test_disk_that_is_full_just_after_creation_ends_the_command(small_disk: Path) -> None:
    shell = Shell(small_disk / "data")
    with shell.running("generate", "house", "-d", "3600") as command:
        generation_id = read_until("queued", command).partition(":")[0]
        filler = fill(small_disk)
        _, error = command.communicate(timeout=SECONDS)
    line = error.splitlines()[-1]
    assert command.returncode == 1
    assert line == (
        f"error: the database's disk is full: {shell.data_dir}; free up space, then go on with: "
        f"dgx-music watch {generation_id}"
    )
    assert "Traceback" not in error
    assert "disk is full" in shell.error("generate", "house", status=TRY_AGAIN)
    filler.unlink()
    shell.run("cancel", generation_id)


def test_generation_that_no_worker_could_claim_is_done_when_there_is_room(small_disk: Path) -> None:
    """The disk takes the new row, and nothing more."""
    shell = Shell(small_disk / "data")
    shell.run("history")
    for free_bytes in range(152_000, 400_000, 16_000):
        filler = fill(small_disk, free_bytes=free_bytes)
        with shell.running("generate", "house", "-d", "0.5") as command:
            _, error = command.communicate(timeout=SECONDS)
        filler.unlink()
        if match := re.search("go on with: dgx-music watch (.+)", error):
            break
        assert "the database's disk is full" in error
    assert match is not None
    assert command.returncode == 1
    assert "completed" in shell.run("watch", match[1]).stderr


def test_full_disk_is_reported_before_anything_is_created(
    small_disk: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    shell = Shell(small_disk / "data")
    shell.run("history")
    fill(small_disk)
    line = shell.error("generate", "house", status=TRY_AGAIN)
    assert line == f"error: the database's disk is full: {shell.data_dir}; free up space"
    elsewhere = {"DGX_MUSIC_DATABASE_URL": f"sqlite:///{tmp_path_factory.mktemp('database')}/music.db"}
    line = shell.error("generate", "house", status=1, **elsewhere)
    assert line.startswith(f"error: can't write to {shell.data_dir}: No space left on device; free up space, or choose")


def test_data_directory_that_is_read_only_is_reported(small_disk: Path) -> None:
    shell = Shell(small_disk / "data")
    shell.run("history")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    line = shell.error("generate", "house", status=1)
    assert line.startswith(f"error: can't write to {shell.data_dir}: Read-only file system; choose another folder")


def test_copies_on_a_full_disk_leave_nothing_and_end_a_batch_at_once(
    small_disk: Path, tmp_path_factory: pytest.TempPathFactory, capfd: pytest.CaptureFixture[str]
) -> None:
    """Two files would fit on the disk of the library, but not on that of the copies."""
    elsewhere = tmp_path_factory.mktemp("library")
    shell = InProcessShell(elsewhere / "data", capfd)
    prompts = elsewhere / "prompts.txt"
    prompts.write_text("house\ntechno\n")
    with shell.serving_in_process():
        copy = small_disk / "copy.wav"
        done = shell.run("generate", "jazz", "-d", "25", "-o", str(copy), status=1)
        line = done.stderr.splitlines()[-1]
        assert line.startswith(f"error: failed to write {copy}: No space left on device; the generation is kept: ")
        assert list(small_disk.iterdir()) == []
        folder = small_disk / "copies"
        batch = ("generate", "--file", str(prompts), "-d", "25")
        done = shell.run(*batch, "--output-dir", str(folder), status=1)
        *_, again, line = done.stderr.splitlines()
        assert again == "0 of 2 done; run the same command again to continue"
        assert line == f"error: failed to write to {folder}: No space left on device"
        assert list(folder.iterdir()) == []
        done = shell.run(*batch, "--output-dir", str(elsewhere / "copies"))
        assert "2 of 2 done" in done.stderr
