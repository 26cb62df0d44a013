"""Gives databases as earlier versions left them: rows in every state, in the first revision of the schema."""

from __future__ import annotations

import hashlib
from typing import Any

from sqlalchemy import text

from storage_service.db.database import Database

TABLES = "generations", "prompts"

_WHEN = "2026-10-0{day} 12:00:00.000000"
_ROWS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("pending", {}),
    ("pending", {"not_before": 4, "attempt": 1, "error_message": "the model is loading"}),
    ("processing", {"started_at": 2, "attempt": 1, "lease_token": "t", "lease_expires_at": 2, "stage": "generating"}),
    (
        "completed",
        {
            "started_at": 2,
            "completed_at": 3,
            "attempt": 1,
            "progress": 1.0,
            "file_path": "outputs/a.wav",
            "file_size_bytes": 1000,
            "generation_time_seconds": 1.5,
        },
    ),
    ("failed", {"started_at": 2, "completed_at": 3, "attempt": 3, "error_message": "no luck"}),
    ("cancelled", {"completed_at": 3}),
)
KINDS = len(_ROWS)
_TIMES = "started_at", "completed_at", "not_before", "lease_expires_at"


def insert_old_rows(url: str, *, copies: int = 1) -> int:
    """Inserts `copies` generations of each kind into a database at revision 0001 and returns their number."""
    rows = []
    for copy in range(copies):
        for number, (status, values) in enumerate(_ROWS):
            stamped = {name: _WHEN.format(day=day) if name in _TIMES else day for name, day in values.items()}
            rows.append(
                {
                    **dict.fromkeys((*_TIMES, "lease_token", "stage", "error_message", "file_path")),
                    **dict.fromkeys(("file_size_bytes", "generation_time_seconds")),
                    "attempt": 0,
                    "progress": 0.0,
                    "id": f"{copy:08x}-0000-4000-8000-{number:012x}",
                    "prompt": f"prompt {number}",
                    "status": status,
                    "created_at": _WHEN.format(day=1),
                    "request_id": f"{copy:08x}-1111-4000-8000-{number:012x}",
                    **stamped,
                }
            )
    prompts = [
        {
            "text": f"prompt {number}",
            "text_sha256": hashlib.sha256(f"prompt {number}".encode()).hexdigest(),
            "used_count": copies,
            "when": _WHEN.format(day=1),
        }
        for number in range(len(_ROWS))
    ]
    with Database(url) as database, database.connect_for_writing() as connection:
        names = ", ".join(rows[0])
        values = ", ".join(f":{name}" for name in rows[0])
        connection.execute(
            text(
                f"INSERT INTO generations ({names}, model_name, model_version, duration_seconds, sample_rate, "
                "channels, seed, file_encoding, metadata, request_fingerprint, max_attempts, worker_id) "
                f"VALUES ({values}, 'sketch', '1', 4.0, 32000, 2, 7, 'pcm_24', '{{\"bpm\": 84}}', 'f', 3, 'w')"
            ),
            rows,
        )
        connection.execute(
            text(
                "INSERT INTO prompts (text, text_sha256, used_count, first_used_at, last_used_at) "
                "VALUES (:text, :text_sha256, :used_count, :when, :when)"
            ),
            prompts,
        )
    return len(rows)


def rows_of(database: Database) -> dict[str, list[dict[str, Any]]]:
    """Returns every row of the tables that exist in all revisions."""
    with database.read() as session:
        return {
            table: [dict(row) for row in session.execute(text(f"SELECT * FROM {table} ORDER BY id")).mappings()]
            for table in TABLES
        }
