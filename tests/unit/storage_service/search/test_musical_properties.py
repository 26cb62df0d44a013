"""Tempo and key, as lists are filtered by them."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from dgx_music.errors import InvalidArgument
from service_runtime.rpc.paging import Page
from storage_service.db.database import Database
from storage_service.db.models import Generation
from storage_service.domain import creation, leases, lifecycle
from storage_service.domain.creation import NewGeneration
from storage_service.domain.leases import Completion
from storage_service.domain.listing import GenerationFilter, list_generations
from storage_service.search.musical_properties import canonical_key, musical_columns
from storage_service.states import GenerationStatus

NONE = {"bpm": None, "music_key": None}


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("A minor", "A minor"),
        ("D# minor", "Eb minor"),
        ("E♭ minor", "Eb minor"),
        ("Cb major", "B major"),
        ("B# minor", "C minor"),
        (" G#  major ", "Ab major"),
        ("Db major", "C# major"),
        ("H minor", None),
        ("A", None),
        ("a minor", None),
        ("A dorian", None),
        ("", None),
    ],
)
def test_keys_are_stored_in_one_spelling(written: str, stored: str | None) -> None:
    assert canonical_key(written) == stored


@pytest.mark.parametrize(
    ("metadata", "columns"),
    [
        ({}, NONE),
        ({"bpm": 84.0, "key": "A minor"}, {"bpm": 84.0, "music_key": "A minor"}),
        ({"measured_bpm": 84.11, "measured_key": "A# major"}, {"bpm": 84.11, "music_key": "Bb major"}),
        (
            {"bpm": 90, "measured_bpm": 45.0, "key": "C major", "measured_key": "A minor"},
            {"bpm": 90.0, "music_key": "C major"},
        ),
        ({"bpm": "fast", "measured_bpm": 120.0, "key": ["x"], "measured_key": "x"}, {"bpm": 120.0, "music_key": None}),
        ({"bpm": True, "key": None}, NONE),
        ({"bpm": float("nan"), "key": {}}, NONE),
        ({"bpm": -1.0}, NONE),
        ({"bpm": 10**400}, NONE),
        ({"bpm": 1001}, NONE),
    ],
)
def test_columns_are_those_of_the_metadata_and_stand_anything(
    metadata: dict[str, Any], columns: dict[str, Any]
) -> None:
    assert musical_columns(metadata) == columns


def found_by(database: Database, **chosen: Any) -> list[str]:
    with database.read() as session:
        rows, _ = list_generations(session, GenerationFilter(**chosen), Page())
        return [row.prompt for row in rows]


def test_lists_are_filtered_by_tempo_and_key(database: Database) -> None:
    made: list[tuple[str, dict[str, Any]]] = [
        ("slow", {"bpm": 60.0, "key": "A minor"}),
        ("fast", {"measured_bpm": 174.2, "measured_key": "D# minor"}),
        ("free", {"measured_key": "A minor"}),
        ("plain", {}),
    ]
    with database.write() as session:
        for prompt, metadata in made:
            creation.create(session, NewGeneration(prompt, "sketch", 4.0, 32000, 2, metadata=metadata))
    assert found_by(database, min_bpm=60.0) == ["fast", "slow"]
    assert found_by(database, min_bpm=60.1) == ["fast"]
    assert found_by(database, max_bpm=60.0) == ["slow"]
    assert found_by(database, min_bpm=61.0, max_bpm=174.0) == []
    assert found_by(database, key="A minor") == ["free", "slow"]
    assert found_by(database, key="Eb minor") == found_by(database, key="D# minor") == ["fast"]
    assert found_by(database, key="A minor", min_bpm=50.0) == ["slow"]
    assert found_by(database, key="A minor", statuses=[GenerationStatus.PENDING]) == ["free", "slow"]
    assert found_by(database, key="A minor", statuses=[GenerationStatus.FAILED]) == []
    assert found_by(database, key="A minor", prompt_contains="FRE") == ["free"]
    assert found_by(database, min_bpm=1.0, min_rating=1) == []


def test_columns_follow_the_metadata(database: Database) -> None:
    with database.write() as session:
        id = creation.create(session, NewGeneration("piano", "sketch", 4.0, 32000, 2)).id
    assert found_by(database, key="C major") == []
    with database.write() as session:
        claimed = leases.claim(session, "w", ["sketch"], 30.0)
        assert claimed is not None
        facts = {"measured_bpm": 99.0, "measured_key": "C major"}
        leases.complete(session, id, claimed.lease_token or "", Completion("outputs/a.wav", 1000, 1.0, "1", facts))
    assert found_by(database, key="C major", min_bpm=99.0, max_bpm=99.0) == ["piano"]
    with database.write() as session:
        lifecycle.update_metadata(session, id, {"bpm": 98.0, "measured_key": None})
    assert found_by(database, max_bpm=98.0) == ["piano"]
    assert found_by(database, key="C major") == []
    with database.write() as session:
        session.get_one(Generation, id).set_metadata({"key": "Gb minor"})
    assert found_by(database, key="F# minor") == ["piano"]
    assert found_by(database, max_bpm=1000.0) == []
    with database.read() as session:
        assert session.scalar(select(Generation.bpm)) is None


@pytest.mark.parametrize(
    ("field", "chosen"),
    [
        ("min_bpm", {"min_bpm": -1.0}),
        ("min_bpm", {"min_bpm": float("nan")}),
        ("max_bpm", {"max_bpm": 1000.5}),
        ("max_bpm", {"min_bpm": 90.0, "max_bpm": 80.0}),
        ("key", {"key": "A"}),
        ("key", {"key": "x" * 10_000}),
    ],
)
def test_what_is_no_tempo_or_key_names_its_field(database: Database, field: str, chosen: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument) as raised:
        found_by(database, **chosen)
    assert raised.value.field == field
    assert len(raised.value.message) < 200
