"""Metadata patches in every state."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from dgx_music.errors import InvalidArgument, NotFound
from storage_service.db.database import Database
from storage_service.db.models import Generation
from storage_service.domain import lifecycle
from storage_service.domain.request_validation import MAX_MERGED_METADATA_BYTES
from storage_service.states import GenerationStatus

Row = Callable[..., Generation]


@pytest.mark.parametrize("status", GenerationStatus)
def test_update_metadata_changes_only_metadata_in_every_state(
    database: Database, row_in: Row, status: GenerationStatus
) -> None:
    row = row_in(status, metadata_={"bpm": 80, "key": "C", "deep": {"a": 1, "b": 2}})
    before = row.to_dict()
    with database.write() as session:
        updated = lifecycle.update_metadata(session, row.id.upper(), {"bpm": 81, "key": None, "deep": {"b": None}})
        assert updated.metadata_ == {"bpm": 81, "deep": {"a": 1}}
    with database.read() as session:
        assert lifecycle.get(session, row.id).to_dict() == {
            **before,
            "metadata": {"bpm": 81, "deep": {"a": 1}},
            "bpm": 81.0,
        }


def test_update_metadata_rejects_invalid_patch(database: Database, row_in: Row) -> None:
    row = row_in(GenerationStatus.COMPLETED)
    with database.write() as session:
        with pytest.raises(NotFound):
            lifecycle.update_metadata(session, "00000000-0000-4000-8000-000000000000", {})
        for generation_id, patch, field in (
            ("x", {}, "id"),
            (row.id, {"a": "x" * 16384}, "metadata"),
            (row.id, {"a": float("nan")}, "metadata"),
        ):
            with pytest.raises(InvalidArgument) as raised:
                lifecycle.update_metadata(session, generation_id, patch)
            assert raised.value.field == field
    with database.write() as session:
        for n in range(6):
            lifecycle.update_metadata(session, row.id, {f"piece {n}": "x" * 10000})
        with pytest.raises(InvalidArgument, match=str(MAX_MERGED_METADATA_BYTES)):
            lifecycle.update_metadata(session, row.id, {"piece 6": "x" * 10000})
    with database.write() as session:  # What is full can be emptied.
        assert len(lifecycle.update_metadata(session, row.id, {"piece 0": None}).metadata_) == 5


def test_concurrent_patches_are_all_applied(database: Database, row_in: Row) -> None:
    row = row_in(GenerationStatus.PENDING)

    def work(worker: int) -> None:
        for n in range(5):
            with database.write() as session:
                lifecycle.update_metadata(session, row.id, {f"{worker}.{n}": n})

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, range(3)))
    with database.read() as session:
        assert len(lifecycle.get(session, row.id).metadata_) == 15
