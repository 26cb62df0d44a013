"""Gives rows in every legal state, written without the state machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import text

from storage_service.db.database import Database
from storage_service.db.models import Generation
from storage_service.domain import creation
from storage_service.domain.creation import NewGeneration

SOME_TIME = "2026-01-01 00:00:00"
LEGAL: dict[str, dict[str, Any]] = {
    "pending": {},
    "processing": {
        "started_at": SOME_TIME,
        "attempt": 1,
        "lease_token": "t",
        "lease_expires_at": SOME_TIME,
        "lease_check_at": SOME_TIME,
        "stage": "generating",
    },
    "completed": {
        "started_at": SOME_TIME,
        "completed_at": SOME_TIME,
        "attempt": 1,
        "file_path": "outputs/a.wav",
        "file_size_bytes": 10,
        "generation_time_seconds": 1.0,
        "progress": 1.0,
        "metadata": '{"file_sha256": "ab"}',
    },
    "failed": {"started_at": SOME_TIME, "completed_at": SOME_TIME, "attempt": 1, "error_message": "no luck"},
    "cancelled": {"completed_at": SOME_TIME},
}


def insert_row(database: Database, new: Callable[..., NewGeneration], status: str, **wrong: Any) -> Generation:
    """Writes a row in this state, with the given columns replaced by illegal values."""
    with database.write() as session:
        row = creation.create(session, new())
        values = {"status": status, **LEGAL[status], **wrong}
        named = ", ".join(f"{name} = {value if value is None else f':{name}'}" for name, value in values.items())
        session.execute(text(f"UPDATE generations SET {named.replace('None', 'NULL')} WHERE id = '{row.id}'"), values)
        return row
