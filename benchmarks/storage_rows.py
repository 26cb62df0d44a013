"""Realistic rows, a thousand generations per day, which are inserted in bulk instead of through the library.

Three of four generations reuse a prompt. Nine of ten are completed, with all 29 metadata fields that the sketch model,
the worker and export record; the rest have failed, are cancelled, pending or being processed.
"""

from __future__ import annotations

import base64
import random
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from sqlalchemy import Table

from storage_service.db.database import Database
from storage_service.db.models import Generation, Prompt
from storage_service.db.types import pack_json
from storage_service.domain.prompts import text_sha256
from storage_service.search.musical_properties import musical_columns

MODELS = ("sketch", "musicgen-small", "musicgen-medium", "musicgen-large", "musicgen-stereo-small")
STATUSES = ("completed", "failed", "cancelled", "pending", "processing")
SHARES = (90.0, 3.0, 3.0, 3.9, 0.1)
CLIENTS = tuple(f"client-{number}" for number in range(20))
PROMPTS_SHARE = 0.25
"""Ratio of distinct prompts to generations."""

GENRES = ("lo-fi hip hop", "house", "ambient", "drum and bass", "jazz", "synthwave", "orchestral", "techno", "folk")
INSTRUMENTS = ("a warm piano", "soft strings", "analogue bass", "brushed drums", "a clean guitar", "bells", "a flute")
MOODS = ("calm", "driving", "melancholic", "bright", "dark", "hopeful", "dreamy", "tense")
KEYS = tuple(f"{note} {mode}" for note in ("C", "D", "E", "F", "G", "A", "B") for mode in ("major", "minor"))

INTERVAL_SECONDS = 86.4
"""A thousand generations per day, whatever their number, so that counting by day costs the same per row."""


class Rows:
    """Generates the rows of one database; the same seed gives the same rows."""

    def __init__(self, seed: int = 1) -> None:
        self._random = random.Random(seed)
        self._ids: list[str] = []
        self._prompts: list[str] = []
        self._uses: dict[str, int] = {}
        self._last_used: dict[str, datetime] = {}
        self._until = datetime.now(UTC) - timedelta(minutes=1)

    def generations(self, count: int) -> Iterator[dict[str, Any]]:
        """Yields the next `count` generations, oldest first."""
        ages = sorted((self._random.uniform(0, count * INTERVAL_SECONDS) for _ in range(count)), reverse=True)
        for age in ages:
            yield self._generation(self._until - timedelta(seconds=age))

    def prompts(self) -> Iterator[dict[str, Any]]:
        """Yields the prompts that were first used since the last call, with their use counts."""
        span = len(self._ids) * INTERVAL_SECONDS
        for text, uses in self._uses.items():
            yield {
                "text": text,
                "text_sha256": text_sha256(text),
                "used_count": uses,
                "first_used_at": self._until - timedelta(seconds=self._random.uniform(0, span)),
                "last_used_at": self._last_used[text],
            }
        self._uses, self._last_used = {}, {}
        self._prompts = []

    def sample(self, count: int) -> list[str]:
        """Returns `count` random ids of the generations so far."""
        return random.Random(0).choices(self._ids, k=count)

    def _prompt(self) -> str:
        draw = self._random
        if self._prompts and draw.random() > PROMPTS_SHARE:
            text = draw.choice(self._prompts)
        else:
            text = (
                f"{draw.choice(MOODS)} {draw.choice(GENRES)} at {draw.randrange(60, 180)} BPM in {draw.choice(KEYS)} "
                f"with {draw.choice(INSTRUMENTS)} and {draw.choice(INSTRUMENTS)}, take {draw.getrandbits(40)}"
            )
            self._prompts.append(text)
        self._uses[text] = self._uses.get(text, 0) + 1
        return text

    def _generation(self, created_at: datetime) -> dict[str, Any]:
        draw = self._random
        generation_id = str(uuid.UUID(int=draw.getrandbits(128), version=4))
        self._ids.append(generation_id)
        prompt = self._prompt()
        self._last_used[prompt] = created_at
        (status,) = draw.choices(STATUSES, SHARES)
        seconds = draw.choice((8.0, 16.0, 30.0, 60.0))
        row: dict[str, Any] = {
            "id": generation_id,
            "prompt": prompt,
            "model_name": draw.choice(MODELS),
            "status": status,
            "duration_seconds": seconds,
            "sample_rate": 32000,
            "channels": 2,
            "seed": draw.getrandbits(32),
            "created_at": created_at,
            "metadata": {},
            "request_id": str(uuid.UUID(int=draw.getrandbits(128), version=4)),
            "request_fingerprint": f"{draw.getrandbits(64):016x}",
            "priority": 0,
            "ranked_at": created_at if status in ("pending", "processing") else None,
            "client": draw.choice(CLIENTS),
            "attempt": 0 if status == "pending" else 1,
            "max_attempts": 3,
            "progress": 0.0,
        }
        if status in ("pending", "cancelled"):
            return row | ({"completed_at": created_at} if status == "cancelled" else {})
        started_at = created_at + timedelta(seconds=1)
        row |= {
            "started_at": started_at,
            "worker_id": "dgx-12345-0123abcd",
            "lease_token": base64.urlsafe_b64encode(draw.randbytes(16)).decode().rstrip("="),
        }
        if status == "processing":
            until = self._until + timedelta(days=1)
            return row | {"lease_expires_at": until, "lease_check_at": until, "stage": "generating"}
        work_seconds = seconds * draw.uniform(0.1, 2)
        row |= {"completed_at": started_at + timedelta(seconds=work_seconds)}
        if status == "failed":
            return row | {"error_message": "the model ran out of memory at step 311; ask for less at once"}
        metadata = self._build_metadata(seconds)
        return row | {
            "model_version": "1",
            "file_path": f"outputs/{created_at:%Y/%m/%d}/{generation_id}.wav",
            "file_size_bytes": round(seconds * 32000 * 6),
            "generation_time_seconds": work_seconds,
            "progress": 1.0,
            "metadata": metadata,
            **musical_columns(metadata),
        }

    def _build_metadata(self, seconds: float) -> dict[str, Any]:
        draw = self._random
        bpm = float(draw.randrange(60, 180))
        return {
            "bpm": bpm,
            "key": draw.choice(KEYS),
            "genre": draw.choice(GENRES),
            "instruments": ", ".join(draw.sample(INSTRUMENTS, 4)),
            "time_signature": "4/4",
            "license": "Apache-2.0",
            "is_synthesiser": True,
            "frames": seconds * 32000,
            "file_format": "WAV_PCM_24",
            "file_sample_rate_hz": 32000.0,
            "file_channels": 2.0,
            "pcm_sha256": f"{draw.getrandbits(256):064x}",
            "file_sha256": f"{draw.getrandbits(256):064x}",
            "normalization_mode": "LINEAR",
            "gain_db": round(draw.uniform(-6, 6), 2),
            "shortfall_lu": 0.0,
            "largest_reduction_db": 0.0,
            "limited_share": 0.0,
            "provenance": "INFO, BEXT",
            "integrated_lufs": round(draw.uniform(-16.1, -15.9), 2),
            "true_peak_dbtp": round(draw.uniform(-6, -1), 2),
            "loudness_range_lu": round(draw.uniform(1, 9), 2),
            "rms_dbfs": round(draw.uniform(-20, -15), 2),
            "peak_to_loudness_lu": round(draw.uniform(10, 15), 2),
            "measured_bpm": round(bpm + draw.uniform(-0.1, 0.1), 2),
            "measured_bpm_confidence": round(draw.uniform(0.3, 1), 2),
            "measured_bpm_alternative": round(bpm / 2, 2),
            "measured_key": draw.choice(KEYS),
            "measured_key_confidence": round(draw.uniform(0.3, 1), 2),
        }


def load(database: Database, rows: Rows, count: int) -> None:
    """Inserts the next `count` generations and their prompts into the database, one transaction per table."""
    for table, values in ((Generation.__table__, rows.generations(count)), (Prompt.__table__, rows.prompts())):
        assert isinstance(table, Table)
        with database.connect_for_writing() as connection:
            driver = connection.connection.driver_connection
            if database.is_sqlite:
                _insert(driver, table, values)
            else:
                _copy(driver, table, values)


def _columns(table: Table) -> list[str]:
    return [column.name for column in table.columns if (table.name, column.name) != ("prompts", "id")]


def _insert(connection: Any, table: Table, rows: Iterator[dict[str, Any]]) -> None:
    columns = _columns(table)
    slots = ", ".join("?" for _ in columns)
    statement = f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({slots})"

    def encode(value: Any) -> Any:
        if isinstance(value, dict):
            return pack_json(value)
        return f"{value:%Y-%m-%d %H:%M:%S.%f}" if isinstance(value, datetime) else value

    connection.execute("PRAGMA cache_size=-500000")  # 500 MB, because random ids touch every page of their index.
    connection.executemany(statement, (tuple(encode(row.get(name)) for name in columns) for row in rows))
    connection.execute("PRAGMA cache_size=-2000")  # SQLite's default.


def _copy(connection: psycopg.Connection[Any], table: Table, rows: Iterator[dict[str, Any]]) -> None:
    columns = _columns(table)

    def encode(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        packed = pack_json(value)
        return packed.encode() if isinstance(packed, str) else packed

    with connection.cursor() as cursor, cursor.copy(f"COPY {table.name} ({', '.join(columns)}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row([encode(row.get(name)) for name in columns])
