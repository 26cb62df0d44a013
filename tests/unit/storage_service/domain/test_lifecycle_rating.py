"""Ratings in every state, and the size and hash of a file whose tags were edited."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from dgx_music.errors import Aborted, FailedPrecondition, InvalidArgument, NotFound
from storage_service.db.counts import find_count_mismatches
from storage_service.db.database import Database
from storage_service.db.models import Generation
from storage_service.domain import leases, lifecycle
from storage_service.domain.leases import Completion
from storage_service.domain.request_validation import MAX_MERGED_METADATA_BYTES
from storage_service.domain.statistics import compute_statistics
from storage_service.states import GenerationStatus
from tests.unit.storage_service.conftest import TOKEN

Row = Callable[..., Generation]
NOBODY = "00000000-0000-4000-8000-000000000000"
SHA256 = "0f" * 32


@pytest.mark.parametrize("status", GenerationStatus)
def test_rating_changes_only_rating_in_every_state(database: Database, row_in: Row, status: GenerationStatus) -> None:
    row = row_in(status, metadata_={"bpm": 80})
    before = row.to_dict()
    for rating, stored in ((1, 1), (5, 5), (5, 5), (0, None), (0, None)):
        with database.write() as session:
            assert lifecycle.rate(session, row.id.upper(), rating).rating == stored
        with database.read() as session:
            assert lifecycle.get(session, row.id).to_dict() == {**before, "rating": stored}


def test_rating_survives_what_follows(database: Database, row_in: Row) -> None:
    row = row_in(GenerationStatus.PROCESSING)
    with database.write() as session:
        lifecycle.rate(session, row.id, 4)
        leases.fail(session, row.id, TOKEN, "no luck", retryable=False)
        assert lifecycle.retry(session, row.id).rating == 4
        claimed = leases.claim(session, "w", ["sketch"], 30.0)
        assert claimed is not None
        completion = Completion("a.wav", 10, 1.0, "1", {})
        assert leases.complete(session, row.id, claimed.lease_token or "", completion).rating == 4


@pytest.mark.parametrize(
    ("generation_id", "rating", "field"), [("x", 3, "id"), (NOBODY, -1, "rating"), (NOBODY, 6, "rating")]
)
def test_invalid_rating_names_its_field(database: Database, generation_id: str, rating: int, field: str) -> None:
    with database.write() as session:
        with pytest.raises(InvalidArgument) as raised:
            lifecycle.rate(session, generation_id, rating)
        with pytest.raises(NotFound):
            lifecycle.rate(session, NOBODY, 3)
    assert raised.value.field == field


@pytest.mark.parametrize("status", GenerationStatus)
def test_update_file_changes_only_size_and_hash_of_completed(
    database: Database, row_in: Row, status: GenerationStatus
) -> None:
    row = row_in(status, file_size_bytes=1000, file_path="a.wav", metadata_={"bpm": 80, "file_sha256": "00" * 32})
    before = row.to_dict()
    with database.write() as session:
        if status is not GenerationStatus.COMPLETED:
            with pytest.raises(FailedPrecondition, match="must be COMPLETED") as raised:
                lifecycle.update_file(session, row.id, 2**40, SHA256)
            assert raised.value.reason == "ILLEGAL_TRANSITION"
        else:
            for _ in range(2):  # It may be repeated.
                updated = lifecycle.update_file(session, row.id.upper(), 2**40, SHA256)
            before |= {"file_size_bytes": 2**40, "metadata": {"bpm": 80, "file_sha256": SHA256}, "bpm": 80.0}
            assert updated.to_dict() == before
            assert compute_statistics(session).overall.completed_file_bytes == 2**40
        assert find_count_mismatches(session) == []
    with database.read() as session:
        assert lifecycle.get(session, row.id).to_dict() == before


@pytest.mark.parametrize(
    ("size_bytes", "sha256", "field"),
    [
        (0, SHA256, "file_size_bytes"),
        (-1, SHA256, "file_size_bytes"),
        (1, "", "file_sha256"),
        (1, SHA256.upper(), "file_sha256"),
        (1, SHA256[1:], "file_sha256"),
        (1, SHA256 + "\n", "file_sha256"),
    ],
)
def test_invalid_file_names_its_field(
    database: Database, row_in: Row, size_bytes: int, sha256: str, field: str
) -> None:
    row = row_in(GenerationStatus.COMPLETED)
    with database.write() as session:
        with pytest.raises(InvalidArgument) as raised:
            lifecycle.update_file(session, row.id, size_bytes, sha256)
        with pytest.raises(InvalidArgument, match="UUID"):
            lifecycle.update_file(session, "x", 1, SHA256)
        with pytest.raises(NotFound):
            lifecycle.update_file(session, NOBODY, 1, SHA256)
    assert raised.value.field == field


@pytest.mark.parametrize("recorded", ["", "00" * 32])
def test_update_file_is_refused_if_another_edit_was_recorded(database: Database, row_in: Row, recorded: str) -> None:
    row = row_in(GenerationStatus.COMPLETED, metadata_={"file_sha256": recorded} if recorded else {})
    with database.write() as session:
        with pytest.raises(Aborted) as raised:
            lifecycle.update_file(session, row.id, 7, SHA256, previous_sha256="11" * 32)
        assert raised.value.reason == "FILE_CHANGED"
        for _ in range(2):  # It may be repeated.
            updated = lifecycle.update_file(session, row.id, 7, SHA256, previous_sha256=recorded)
        assert updated.metadata_["file_sha256"] == SHA256
        with pytest.raises(NotFound):
            lifecycle.update_file(session, NOBODY, 7, SHA256, previous_sha256=recorded)


def test_update_file_patches_metadata(database: Database, row_in: Row) -> None:
    before = {"bpm": 80, "file_sha256": "00" * 32, "provenance": "ID3", "manifest_path": "a.c2pa"}
    row = row_in(GenerationStatus.COMPLETED, metadata_=before)
    patch = {"provenance": "ID3, C2PA", "manifest_path": None, "file_sha256": "no hash"}
    with database.write() as session:
        updated = lifecycle.update_file(session, row.id, 7, SHA256, patch=patch)
        assert updated.metadata_ == {"bpm": 80, "file_sha256": SHA256, "provenance": "ID3, C2PA"}
        with pytest.raises(InvalidArgument, match="metadata"):
            lifecycle.update_file(session, row.id, 7, SHA256, patch={"x": "x" * 20_000})


def test_update_file_is_not_stopped_by_full_metadata(database: Database, row_in: Row) -> None:
    row = row_in(GenerationStatus.COMPLETED, metadata_={"notes": "x" * (MAX_MERGED_METADATA_BYTES - 20)})
    with database.write() as session:
        assert lifecycle.update_file(session, row.id, 7, SHA256).metadata_["file_sha256"] == SHA256


def test_update_file_and_concurrent_patches_are_all_applied(database: Database, row_in: Row) -> None:
    row = row_in(GenerationStatus.COMPLETED)

    def work(worker: int) -> None:
        for n in range(5):
            with database.write() as session:
                if worker:
                    lifecycle.update_metadata(session, row.id, {f"{worker}.{n}": n})
                else:
                    lifecycle.update_file(session, row.id, n + 1, SHA256)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, range(3)))
    with database.read() as session:
        stored = lifecycle.get(session, row.id)
        assert (len(stored.metadata_), stored.file_size_bytes) == (11, 5)
        assert find_count_mismatches(session) == []
