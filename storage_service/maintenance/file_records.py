"""What the rows say about audio files: read for comparison with the files themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import func, select, update

from storage_service.db.database import Database
from storage_service.db.models import Generation
from storage_service.maintenance.row_ranges import iter_row_ranges
from storage_service.states import GenerationStatus


@dataclass(frozen=True)
class CompletedFile:
    """What the row of a COMPLETED generation says about its file."""

    generation_id: str
    path: str | None
    """Relative to the data directory."""
    size_bytes: int | None
    sha256: str | None
    """In lower-case hex; None if it was not recorded."""


@dataclass(frozen=True)
class FileOwner:
    """The generation to which a file belongs by its name."""

    status: GenerationStatus
    attempt: int
    path: str | None
    """Of its finished file, relative to the data directory."""


_FILE_COLUMNS = Generation.id, Generation.file_path, Generation.file_size_bytes, Generation.metadata_


def iter_completed_files(database: Database) -> Iterator[CompletedFile]:
    """Yields the file of every COMPLETED generation."""
    for rows in iter_row_ranges(database, Generation.id):
        statement = select(*_FILE_COLUMNS).where(rows, Generation.status == GenerationStatus.COMPLETED)
        with database.read() as session:
            found = session.execute(statement).all()
        for generation_id, path, size_bytes, metadata in found:
            yield CompletedFile(generation_id, path, size_bytes, metadata.get("file_sha256"))


def find_completed_file(database: Database, generation_id: str) -> CompletedFile | None:
    """Returns what is recorded now, or None if the generation is no longer COMPLETED."""
    statement = select(*_FILE_COLUMNS).where(
        Generation.id == generation_id, Generation.status == GenerationStatus.COMPLETED
    )
    with database.read() as session:
        row = session.execute(statement).one_or_none()
    if row is None:
        return None
    return CompletedFile(row.id, row.file_path, row.file_size_bytes, row.metadata_.get("file_sha256"))


def find_file_owners(database: Database, generation_ids: Sequence[str]) -> dict[str, FileOwner]:
    """Returns those of the generations that exist, by id."""
    statement = select(Generation.id, Generation.status, Generation.attempt, Generation.file_path)
    with database.read() as session:
        found = session.execute(statement.where(Generation.id.in_(generation_ids))).all()
    return {row.id: FileOwner(row.status, row.attempt, row.file_path) for row in found}


def record_file_path(database: Database, generation_id: str, old_path: str, path: str) -> None:
    """Records that the file of a generation has moved. Does nothing if another path than `old_path` is recorded."""
    statement = update(Generation).where(Generation.id == generation_id, Generation.file_path == old_path)
    with database.write() as session:
        session.execute(statement.values(file_path=path))


def find_shared_paths(database: Database) -> Iterable[str]:
    """Returns the paths that more than one COMPLETED generation has."""
    statement = (
        select(Generation.file_path)
        .where(Generation.status == GenerationStatus.COMPLETED, Generation.file_path.is_not(None))
        .group_by(Generation.file_path)
        .having(func.count() > 1)
        .order_by(Generation.file_path)
    )
    with database.read() as session:
        return [path for path in session.scalars(statement) if path is not None]
