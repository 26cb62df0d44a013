"""Runs `dgx-music db …` in the test's process, on a data directory with completed generations."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from gateway.cli.invocation import run
from storage_service.config import StorageSettings
from storage_service.db.database import Database
from storage_service.domain import creation
from storage_service.domain.creation import NewGeneration

Command = Callable[..., tuple[int, str, str]]


def completed(data_dir: Path, *, path: str | None = None, audio: bytes = b"RIFF", days_ago: int = 0) -> str:
    """Inserts a completed generation, and its file unless `path` is given; returns its id."""
    with Database(StorageSettings(data_dir=data_dir).resolved_database_url()) as database, database.write() as session:
        generation_id = creation.create(session, NewGeneration("a calm piano", "sketch", 1.0, 32000, 2)).id
        file = path or f"outputs/2026/01/01/{generation_id}.wav"
        session.execute(
            text(
                "UPDATE generations SET status = 'completed', attempt = 1, progress = 1, generation_time_seconds = 1, "
                "created_at = datetime('now', :ago), started_at = datetime('now', :ago), "
                "completed_at = datetime('now', :ago), file_path = :path, file_size_bytes = :size, "
                "metadata = json_object('file_sha256', :sha256) WHERE id = :id"
            ),
            {
                "id": generation_id,
                "path": file,
                "size": len(audio),
                "sha256": hashlib.sha256(audio).hexdigest(),
                "ago": f"-{days_ago} days",
            },
        )
    if path is None:
        (data_dir / file).parent.mkdir(parents=True, exist_ok=True)
        (data_dir / file).write_bytes(audio)
    return generation_id


def db_command(data_dir: Path, capfd: pytest.CaptureFixture[str]) -> Command:
    """Returns a function that runs `dgx-music db …` and returns exit status, standard output and standard error."""

    def run_db(*arguments: str) -> tuple[int, str, str]:
        status = run(["--data-dir", str(data_dir), "db", *arguments])
        captured = capfd.readouterr()
        return status, captured.out, captured.err

    return run_db
