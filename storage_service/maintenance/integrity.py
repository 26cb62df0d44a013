"""Whether a database holds only what the state machine can have written: `walk` gives what is wrong, row by row.

It takes statements that are long where there are many rows: while a server runs, let it walk `backup.still`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, String, and_, case, cast, func, not_, or_, select, text
from sqlalchemy.exc import DatabaseError
from sqlalchemy.orm import InstrumentedAttribute

from storage_service.db import schema
from storage_service.db.counts import find_count_mismatches
from storage_service.db.database import DamagedDatabase, Database
from storage_service.db.models import Generation, Prompt
from storage_service.domain import prompts
from storage_service.states import TERMINAL_STATES, GenerationStage, GenerationStatus

BATCH_ROWS = 5000

_SHOWN_CHARACTERS = 60
"""Of a prompt."""

Key = TypeVar("Key", str, int)


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong."""

    where: str
    """e.g. "generation <id>" or "prompt 12"."""
    problem: str


@dataclass(frozen=True)
class CompletedFile:
    """What a COMPLETED row says of its file."""

    generation_id: str
    path: str | None
    """From the data directory."""
    size_bytes: int | None
    sha256: str | None
    """Lower-case hex; None where nobody told."""


def walk(database: Database) -> Iterator[Finding]:
    """All that is wrong in the database itself. FailedPrecondition where its schema is not this version's."""
    try:
        damages = list(_damages(database))
        yield from damages
        if not damages:
            schema.check_database(database)
            yield from _generations(database)
            yield from _prompts(database)
            yield from _uses(database)
            yield from _counts(database)
    except DamagedDatabase as error:  # It may not even bear to be looked at.
        yield Finding("database", error.message)
    except DatabaseError as error:
        yield Finding("database", f"can't be read: {str(error.orig).partition(chr(10))[0]}")


def completed_files(database: Database) -> Iterator[CompletedFile]:
    """The file of every COMPLETED generation."""
    for rows in _ranges(database, Generation.id):
        statement = select(Generation.id, Generation.file_path, Generation.file_size_bytes, Generation.metadata_).where(
            rows, Generation.status == GenerationStatus.COMPLETED
        )
        with database.read() as session:
            found = session.execute(statement).all()
        for generation_id, path, size_bytes, metadata in found:
            yield CompletedFile(generation_id, path, size_bytes, metadata.get("file_sha256"))


def known_ids(database: Database, generation_ids: list[str]) -> set[str]:
    """Those that have a row, in whatever state."""
    with database.read() as session:
        return set(session.scalars(select(Generation.id).where(Generation.id.in_(generation_ids))))


def is_completed(database: Database, file: CompletedFile) -> bool:
    """Whether the row still stands as it was read: a server may have deleted it, and its file, meanwhile."""
    with database.read() as session:
        statement = select(Generation.status).where(Generation.id == file.generation_id)
        return session.scalar(statement) is GenerationStatus.COMPLETED


def _damages(database: Database) -> Iterator[Finding]:
    if not database.is_sqlite:
        return
    with database.read() as session:
        for (line,) in session.execute(text("PRAGMA integrity_check")):
            if line != "ok":
                yield Finding("database", line)


def _generations(database: Database) -> Iterator[Finding]:
    rules = _rules(database)
    for rows in _ranges(database, Generation.id):
        with database.read() as session:
            broken = session.execute(select(Generation.id, *rules.values()).where(rows, or_(*rules.values()))).all()
            known = session.execute(select(Generation.id, Generation.metadata_).where(rows)).all()
        for generation_id, *verdicts in broken:
            for problem, is_broken in zip(rules, verdicts, strict=True):
                if is_broken:
                    yield Finding(f"generation {generation_id}", problem)
        for generation_id, metadata in known:
            if not metadata.is_object:
                yield Finding(f"generation {generation_id}", "metadata is no JSON object")


def _rules(database: Database) -> dict[str, ColumnElement[bool]]:
    """What is wrong → of which rows that is so."""
    row = Generation
    status = row.status
    pending, processing, completed, failed = (
        status == state
        for state in (
            GenerationStatus.PENDING,
            GenerationStatus.PROCESSING,
            GenerationStatus.COMPLETED,
            GenerationStatus.FAILED,
        )
    )
    finished = status.in_(TERMINAL_STATES)
    has_token, has_lease_end = row.lease_token.is_not(None), row.lease_expires_at.is_not(None)
    rules = {
        "is PENDING and holds a lease": and_(pending, or_(has_token, has_lease_end)),
        "is PENDING and has progress": and_(pending, row.progress != 0),
        "is PROCESSING with half a lease: a token and an end go together": and_(processing, has_token != has_lease_end),
        "is PROCESSING without a stage": and_(processing, row.stage.is_(None)),
        "is PROCESSING and was never started": and_(processing, or_(row.started_at.is_(None), row.attempt < 1)),
        "has a stage, but nobody works on it": and_(not_(processing), row.stage.is_not(None)),
        "has a stage that there is none of": row.stage.not_in([stage.value for stage in GenerationStage]),
        "is finished without a time": and_(finished, row.completed_at.is_(None)),
        "has a time of completion, but is not finished": and_(not_(finished), row.completed_at.is_not(None)),
        "is COMPLETED without a file": and_(completed, row.file_path.is_(None)),
        "is COMPLETED without the time that it took": and_(completed, row.generation_time_seconds.is_(None)),
        "is COMPLETED and was never started": and_(completed, or_(row.started_at.is_(None), row.attempt < 1)),
        "is COMPLETED with progress other than 1": and_(completed, row.progress != 1),
        "is FAILED without a reason": and_(failed, row.error_message.is_(None)),
        "has progress out of 0 to 1": not_(row.progress.between(0, 1)),
        "has a length, rate or channel count out of range": or_(
            row.duration_seconds <= 0, row.sample_rate <= 0, row.channels < 1
        ),
        "has a negative file size or time": or_(row.file_size_bytes < 0, row.generation_time_seconds < 0),
        "counts attempts wrongly": or_(row.attempt < 0, row.max_attempts < 1),
        "has a request id without a fingerprint, or the reverse": row.request_id.is_(None)
        != row.request_fingerprint.is_(None),
    }
    for column in (row.sampling, row.continuation):
        rules[f"{column.expression.name} is no JSON object"] = _is_no_object(column, database)
    return rules


def _is_no_object(column: InstrumentedAttribute[Any], database: Database) -> ColumnElement[bool]:
    if database.is_sqlite:
        stored = cast(column, String)
        return case(
            (stored.is_(None), False), (func.json_valid(stored) == 0, True), else_=func.json_type(stored) != "object"
        )
    return func.coalesce(func.json_typeof(column) != "object", False)


def _prompts(database: Database) -> Iterator[Finding]:
    for rows in _ranges(database, Prompt.id):
        with database.read() as session:
            found = list(session.scalars(select(Prompt).where(rows)))
        for prompt in found:
            if prompt.text_sha256 != prompts.text_sha256(prompt.text):
                yield Finding(f"prompt {prompt.id}", "its hash is another text's")
            if prompt.used_count < 1:
                yield Finding(f"prompt {prompt.id}", f"is counted {prompt.used_count} times")


def _uses(database: Database) -> Iterator[Finding]:
    """A use stays counted when its generation is deleted, so that a prompt may have more uses than rows."""
    rows = func.count(Generation.id)
    statement = (
        select(Generation.prompt, rows, func.coalesce(func.max(Prompt.used_count), 0))
        .join(Prompt, Prompt.text == Generation.prompt, isouter=True)
        .group_by(Generation.prompt)
        .having(func.coalesce(func.max(Prompt.used_count), 0) < rows)
    )
    with database.read() as session:
        miscounted = session.execute(statement).all()
    for prompt, made, counted in miscounted:
        shown = prompt[:_SHOWN_CHARACTERS].replace("\n", " ")
        yield Finding(f"prompt {shown!r}", f"is counted {counted} times, and {made} generations were made from it")


def _counts(database: Database) -> Iterator[Finding]:
    with database.read() as session:
        if not database.is_sqlite:  # Where every statement would see what was committed before it.
            session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        found = find_count_mismatches(session)
    for difference in found:
        yield Finding("counts", difference)


def _ranges(database: Database, key: InstrumentedAttribute[Key]) -> Iterator[ColumnElement[bool]]:
    """Conditions, each true of the next BATCH_ROWS rows by `key`."""
    last: Key | None = None
    while True:
        beyond: ColumnElement[bool] = key.is_not(None) if last is None else key > last
        batch = select(key.label("key")).where(beyond).order_by(key).limit(BATCH_ROWS).subquery()
        with database.read() as session:  # Postgres has a max() of UUIDs from 18 on.
            end = session.scalar(select(batch.c.key).order_by(batch.c.key.desc()).limit(1))
        if end is None:
            return
        yield and_(beyond, key <= end)
        last = end
