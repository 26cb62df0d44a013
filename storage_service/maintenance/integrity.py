"""Checks whether a database holds only what the state machine can have written.

On a large database the statements run for long. While a server runs, check a `backup.snapshot` instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, String, and_, case, cast, func, not_, or_, select, text
from sqlalchemy.exc import DatabaseError
from sqlalchemy.orm import InstrumentedAttribute

from dgx_music.limits import MAX_RATING
from storage_service.db import schema
from storage_service.db.counts import find_count_mismatches
from storage_service.db.database import Database
from storage_service.db.dependent_models import Comparison, ComparisonEntry, ParentLink
from storage_service.db.error_translation import DamagedDatabase, ReplacedDatabase
from storage_service.db.models import Generation, Prompt
from storage_service.db.schema import TEXT_INDEX_TABLE
from storage_service.domain import lineage, prompts
from storage_service.domain.comparisons.comparison_creation import MAX_COMPARED, MIN_COMPARED
from storage_service.maintenance.row_ranges import iter_row_ranges
from storage_service.search.index_repair import find_index_problems
from storage_service.states import TERMINAL_STATES, GenerationStage, GenerationStatus

TEXT_INDEX, REINDEX = "text index", "run `dgx-music db reindex`"

_MAX_SHOWN_CHARACTERS = 60
"""How much of a prompt a finding shows."""


@dataclass(frozen=True)
class Finding:
    """One violation."""

    where: str
    """For example "generation <id>" or "prompt 12"."""
    problem: str
    remedy: str = ""
    """What to do about it, if that is known."""


def find_violations(database: Database) -> Iterator[Finding]:
    """Yields every violation in the database. Raises FailedPrecondition if its schema is not this version's."""
    try:
        damage = list(_find_damage(database))
        yield from damage
        if not damage:
            schema.check_database(database)
            yield from _check_generations(database)
            yield from _check_parents(database)
            yield from _check_comparisons(database)
            yield from _check_prompts(database)
            yield from _check_prompt_uses(database)
            yield from _check_counts(database)
            yield from (Finding(TEXT_INDEX, problem, REINDEX) for problem in find_index_problems(database))
    except DamagedDatabase as error:  # A file may be too damaged even to be opened.
        yield Finding("database", error.message)
    except ReplacedDatabase as error:
        yield Finding("database", error.message.partition(";")[0])
    except DatabaseError as error:
        yield Finding("database", f"can't be read: {str(error.orig).partition(chr(10))[0]}")


def _find_damage(database: Database) -> Iterator[Finding]:
    if not database.is_sqlite:
        return
    with database.read() as session:
        for (line,) in session.execute(text("PRAGMA integrity_check")):
            if line != "ok":
                is_of_index = TEXT_INDEX_TABLE in line  # SQLite's own check includes it from 3.44 on.
                yield Finding(TEXT_INDEX if is_of_index else "database", line, REINDEX if is_of_index else "")


def _check_generations(database: Database) -> Iterator[Finding]:
    rules = _build_rules(database)
    for rows in iter_row_ranges(database, Generation.id):
        with database.read() as session:
            violating = session.execute(select(Generation.id, *rules.values()).where(rows, or_(*rules.values()))).all()
            documents = session.execute(select(Generation.id, Generation.metadata_).where(rows)).all()
        for generation_id, *flags in violating:
            for problem, is_violated in zip(rules, flags, strict=True):
                if is_violated:
                    yield Finding(f"generation {generation_id}", problem)
        for generation_id, metadata in documents:
            if not metadata.is_object:
                yield Finding(f"generation {generation_id}", "metadata is not a JSON object")


def _build_rules(database: Database) -> dict[str, ColumnElement[bool]]:
    """Returns the text of each problem and the condition of the rows that have it."""
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
        "is PROCESSING and has only one of lease token and lease end": and_(processing, has_token != has_lease_end),
        "is PROCESSING and its lease ends without notice": and_(
            processing, has_lease_end, or_(row.lease_check_at.is_(None), row.lease_check_at > row.lease_expires_at)
        ),
        "is PROCESSING without a stage": and_(processing, row.stage.is_(None)),
        "is PROCESSING but was never started": and_(processing, or_(row.started_at.is_(None), row.attempt < 1)),
        "has a stage but is not PROCESSING": and_(not_(processing), row.stage.is_not(None)),
        "has an unknown stage": row.stage.not_in([stage.value for stage in GenerationStage]),
        "is finished but has no completion time": and_(finished, row.completed_at.is_(None)),
        "has a completion time but is not finished": and_(not_(finished), row.completed_at.is_not(None)),
        "is COMPLETED without a file": and_(completed, row.file_path.is_(None)),
        "is COMPLETED without a generation time": and_(completed, row.generation_time_seconds.is_(None)),
        "is COMPLETED but was never started": and_(completed, or_(row.started_at.is_(None), row.attempt < 1)),
        "is COMPLETED with progress other than 1": and_(completed, row.progress != 1),
        "is FAILED without an error message": and_(failed, row.error_message.is_(None)),
        "has progress outside 0 to 1": not_(row.progress.between(0, 1)),
        "has a duration, sample rate or channel count out of range": or_(
            row.duration_seconds <= 0, row.sample_rate <= 0, row.channels < 1
        ),
        "has a negative file size or generation time": or_(row.file_size_bytes < 0, row.generation_time_seconds < 0),
        "has a rating other than 1 to 5": not_(row.rating.between(1, MAX_RATING)),
        "has an attempt count out of range": or_(row.attempt < 0, row.max_attempts < 1),
        "has only one of request id and request fingerprint": row.request_id.is_(None)
        != row.request_fingerprint.is_(None),
    }
    for column in (row.sampling, row.continuation, row.conditioning, row.edit, row.loop):
        rules[f"{column.expression.name} is not a JSON object"] = _is_not_object(column, database)
    return rules


def _is_not_object(column: InstrumentedAttribute[Any], database: Database) -> ColumnElement[bool]:
    if database.is_sqlite:
        stored = cast(column, String)
        return case(
            (stored.is_(None), False), (func.json_valid(stored) == 0, True), else_=func.json_type(stored) != "object"
        )
    return func.coalesce(func.json_typeof(column) != "object", False)


def _check_parents(database: Database) -> Iterator[Finding]:
    """Checks that what a generation's row refers to is what the lineage says."""
    row, link = Generation, ParentLink
    sources = row.continuation, row.conditioning, row.edit
    is_legal = not_(or_(*(_is_not_object(column, database) for column in sources)))
    has_parents = or_(row.variation_of.is_not(None), *(column.is_not(None) for column in sources))
    statement = (
        select(row.id, *sources, row.variation_of, link.parent_id, link.relation)
        .join(link, link.child_id == row.id, isouter=True)
        .where(is_legal, or_(has_parents, link.child_id.is_not(None)))
    )
    for rows in iter_row_ranges(database, row.id):
        with database.read() as session:
            found = session.execute(statement.where(rows)).all()
        links: dict[str, set[tuple[str, str]]] = {}
        for one in found:
            if one.parent_id is not None:
                links.setdefault(one.id, set()).add((one.parent_id, one.relation))
        for generation_id, one in {one.id: one for one in found}.items():
            try:
                named = {(parent.id, parent.relation.value) for parent in lineage.find_parents(one)}
            except (KeyError, TypeError):
                yield Finding(f"generation {generation_id}", "refers to a source without naming it")
                continue
            if named != links.get(generation_id, set()):
                yield Finding(f"generation {generation_id}", "has other parents in the lineage than in its row")
    orphans = select(link.child_id).where(link.child_id.not_in(select(row.id))).distinct()
    with database.read() as session:
        for child_id in session.scalars(orphans):
            yield Finding(f"generation {child_id}", "is in the lineage but does not exist")


def _check_comparisons(database: Database) -> Iterator[Finding]:
    entry = ComparisonEntry
    entries, places = func.count(entry.generation_id), func.count(func.distinct(entry.place))
    orphans = select(entry.generation_id).where(entry.generation_id.not_in(select(Generation.id))).distinct()
    for rows in iter_row_ranges(database, Comparison.id):
        with database.read() as session:
            found = session.execute(
                select(Comparison.id, Comparison.request_id, Comparison.request_fingerprint, entries, places)
                .join(entry, entry.comparison_id == Comparison.id, isouter=True)
                .where(rows)
                .group_by(Comparison.id)
            ).all()
        for comparison_id, request_id, fingerprint, number, distinct in found:
            if not MIN_COMPARED <= number <= MAX_COMPARED:
                yield Finding(f"comparison {comparison_id}", f"has {number} generations, which must be 2 to 4")
            if number != distinct:
                yield Finding(f"comparison {comparison_id}", "has two generations in the same place")
            if (request_id is None) != (fingerprint is None):
                yield Finding(f"comparison {comparison_id}", "has only one of request id and request fingerprint")
    with database.read() as session:
        for generation_id in session.scalars(orphans):
            yield Finding(f"generation {generation_id}", "is in a comparison but does not exist")


def _check_prompts(database: Database) -> Iterator[Finding]:
    for rows in iter_row_ranges(database, Prompt.id):
        with database.read() as session:
            found = list(session.scalars(select(Prompt).where(rows)))
        for prompt in found:
            if prompt.text_sha256 != prompts.text_sha256(prompt.text):
                yield Finding(f"prompt {prompt.id}", "has the hash of another text")
            if prompt.used_count < 1:
                yield Finding(
                    f"prompt {prompt.id}", f"has a use count of {prompt.used_count}, which must be at least 1"
                )


def _check_prompt_uses(database: Database) -> Iterator[Finding]:
    """Checks that no prompt has fewer uses than rows. It may have more, as a deleted generation's use stays counted."""
    rows = func.count(Generation.id)
    statement = (
        select(Generation.prompt, rows, func.coalesce(func.max(Prompt.used_count), 0))
        .join(Prompt, Prompt.text == Generation.prompt, isouter=True)
        .group_by(Generation.prompt)
        .having(func.coalesce(func.max(Prompt.used_count), 0) < rows)
    )
    with database.read() as session:
        miscounted = session.execute(statement).all()
    for prompt, row_count, use_count in miscounted:
        shown = prompt[:_MAX_SHOWN_CHARACTERS].replace("\n", " ")
        yield Finding(f"prompt {shown!r}", f"has a use count of {use_count}, but {row_count} generations use it")


def _check_counts(database: Database) -> Iterator[Finding]:
    with database.read() as session:
        if not database.is_sqlite:  # Else each statement would see a different state.
            session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        found = find_count_mismatches(session)
    for difference in found:
        yield Finding("counts", difference)
