"""Packing of long metadata."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import text

from benchmarks.storage_rows import Rows
from storage_service.db.database import Database
from storage_service.db.types import PACK_THRESHOLD_BYTES, PackedJsonObject, pack_json, unpack_json
from storage_service.domain import creation, lifecycle
from storage_service.domain.creation import NewGeneration
from storage_service.maintenance.integrity import find_violations

FACTS = next(row["metadata"] for row in Rows().generations(100) if row["status"] == "completed")

LISTS = {"b": [1, 2.5, None, {"c": True}] * 50, "a": -1e300}
VALUES: list[dict[str, Any]] = [{}, FACTS, {"a": "ü\0" * 100}, LISTS, {"x": FACTS}, {"n": "y" * 60000}]


@pytest.mark.parametrize("value", VALUES)
def test_unpack_json_restores_packed_value(value: dict[str, Any]) -> None:
    packed = pack_json(value)
    assert isinstance(packed, bytes) == (
        len(json.dumps(value, ensure_ascii=False, separators=(",", ":"))) >= PACK_THRESHOLD_BYTES
    )
    stored = packed.encode() if isinstance(packed, str) else packed  # As Postgres has it.
    for one in (packed, stored):
        assert json.loads(unpack_json(one)) == value
        assert PackedJsonObject(one) == value


def test_packed_metadata_takes_a_third() -> None:
    assert len(json.dumps(FACTS)) > 800
    assert len(pack_json(FACTS)) < 270


def test_metadata_packed_by_earlier_version_is_readable() -> None:
    packed = bytes.fromhex("018326450b133cb1510114a81c054403a55a00")
    assert PackedJsonObject(packed) == {"bpm": 84.0, "license": "Apache-2.0", "x": "y" * 300}


def test_short_metadata_is_stored_as_text_and_long_packed(database: Database) -> None:
    kept = []
    for metadata in ({"bpm": 84}, FACTS):
        with database.write() as session:
            row = creation.create(session, NewGeneration("piano", "sketch", 4.0, 32000, 2, metadata=metadata))
        with database.read() as session:
            assert lifecycle.get(session, row.id).get_metadata() == metadata
            kept.append(session.scalar(text("SELECT metadata FROM generations WHERE id = :id"), {"id": row.id}))
    short, long = kept
    assert short in ('{"bpm":84}', b'{"bpm":84}')
    assert isinstance(long, bytes)
    assert len(long) < 270


@pytest.mark.parametrize("damaged", [b"\x01", b"\x01\xff\xff\xff", b"\x02{}", pack_json(FACTS)[:-40]])
def test_damaged_metadata_is_reported(database: Database, damaged: bytes) -> None:
    assert not PackedJsonObject(damaged).is_object
    with database.write() as session:
        row = creation.create(session, NewGeneration("piano", "sketch", 4.0, 32000, 2))
        session.execute(text("UPDATE generations SET metadata = :damaged"), {"damaged": damaged})
    [finding] = find_violations(database)
    assert (finding.where, finding.problem) == (f"generation {row.id}", "metadata is not a JSON object")
