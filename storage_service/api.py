"""Storage as a library: plain functions on a session, for scripts and tools on the same machine.

They follow the same state machine as the service: an illegal transition raises FailedPrecondition and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dgx_music.errors import FailedPrecondition, InvalidArgument, NotFound
from service_runtime.validation import check_text
from storage_service.config import StorageSettings
from storage_service.db import schema
from storage_service.db.clock import now
from storage_service.db.counts import GenerationCount
from storage_service.db.database import Database
from storage_service.db.models import Generation, Prompt
from storage_service.domain import creation, lifecycle, prompts
from storage_service.domain.request_validation import MAX_NAME_CHARACTERS, check_metadata
from storage_service.domain.row_insertion import Origin
from storage_service.domain.statistics import compute_statistics
from storage_service.states import GenerationStatus

_database: Database | None = None


def init_db(database_url: str | None = None) -> None:
    """Opens the database that all functions use, by default that of the settings. Creates the schema if it is new."""
    global _database
    database = Database(database_url or StorageSettings().resolved_database_url())
    try:
        schema.ensure(database)
    except BaseException:
        database.dispose()
        raise
    if _database is not None:
        _database.dispose()
    _database = database


def reset_database() -> None:
    """Permanently deletes all generations and prompts."""
    schema.reset_database(_require_database())


@contextmanager
def get_session() -> Iterator[Session]:
    """Yields a session that commits at the end of the block and rolls back on an exception."""
    with _require_database().write() as session:
        yield session


def create_generation(
    session: Session,
    prompt: str,
    model_name: str,
    duration_seconds: float,
    sample_rate: int,
    channels: int,
    file_path: str,
    model_version: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    client: str = "",
) -> Generation:
    """Creates a PENDING generation and counts its prompt. Raises InvalidArgument for an invalid field.

    `client` is on whose behalf; clients take turns in the queue.
    """
    new = creation.NewGeneration(
        prompt=prompt,
        model_name=model_name,
        duration_seconds=duration_seconds,
        sample_rate=sample_rate,
        channels=channels,
        metadata=metadata or {},
    )
    check_text("client", client, MAX_NAME_CHARACTERS)
    origin = Origin(client)
    return creation.create(session, new, origin=origin, file_path=file_path, model_version=model_version)


def get_generation(session: Session, generation_id: str) -> Generation | None:
    """Returns the generation, or None if there is none with this id."""
    return session.get(Generation, generation_id)


def get_all_generations(
    session: Session, limit: int = 100, offset: int = 0, status: GenerationStatus | str | None = None
) -> list[Generation]:
    """Returns generations, newest first."""
    newest_first = select(Generation).order_by(Generation.created_at.desc(), Generation.id.desc())
    if status is not None:
        newest_first = newest_first.where(Generation.status == _parse_status(status))
    return list(session.scalars(newest_first.limit(limit).offset(offset)))


def get_generations_by_status(session: Session, status: GenerationStatus | str, limit: int = 100) -> list[Generation]:
    """Returns generations in one state, newest first."""
    return get_all_generations(session, limit=limit, status=status)


def get_pending_generations(session: Session, limit: int = 100) -> list[Generation]:
    """Returns pending generations, oldest first."""
    pending = select(Generation).where(Generation.status == GenerationStatus.PENDING)
    return list(session.scalars(pending.order_by(Generation.created_at, Generation.id).limit(limit)))


def count_generations(session: Session, status: GenerationStatus | str | None = None) -> int:
    """Returns the number of generations, in total or in one state."""
    total = select(func.sum(GenerationCount.generations))
    if status is not None:
        total = total.where(GenerationCount.status == _parse_status(status).value)
    return int(session.scalar(total) or 0)


def update_generation_status(
    session: Session, generation_id: str, status: GenerationStatus | str, error_message: str | None = None
) -> Generation:
    """Changes the status; `error_message` is for "failed". Raises NotFound if there is no generation with this id."""
    generation = _require_generation(session, generation_id)
    match _parse_status(status):
        case GenerationStatus.PENDING:
            generation.mark_pending()
        case GenerationStatus.PROCESSING:
            generation.mark_processing()
        case GenerationStatus.COMPLETED:
            generation.mark_completed(_seconds_since_start(session, generation))
        case GenerationStatus.FAILED:
            generation.mark_failed(error_message or "no error message was given")
        case GenerationStatus.CANCELLED:
            generation.mark_cancelled()
    return generation


def complete_generation(
    session: Session,
    generation_id: str,
    generation_time: float,
    file_size_bytes: int,
    metadata: Mapping[str, Any] | None = None,
) -> Generation:
    """PROCESSING → COMPLETED. Merges `metadata` key by key. Raises NotFound if there is no generation with this id."""
    generation = _require_generation(session, generation_id)
    check_metadata("metadata", metadata or {}, max_bytes=None)
    generation.mark_completed(generation_time)
    generation.file_size_bytes = file_size_bytes
    generation.set_metadata({**generation.get_metadata(), **(metadata or {})})
    session.flush()
    return generation


def rate_generation(session: Session, generation_id: str, rating: int) -> Generation:
    """Sets the rating, 1 to 5, or removes it (0), in any state. Raises NotFound for an unknown generation."""
    return lifecycle.rate(session, _require_generation(session, generation_id).id, rating)


def delete_generation(session: Session, generation_id: str) -> bool:
    """Deletes a generation's row, in any state but PROCESSING. Returns False if there is none with this id."""
    if session.get(Generation, generation_id) is None:
        return False
    lifecycle.remove(session, generation_id)
    return True


def track_prompt_usage(session: Session, text: str) -> Prompt:
    """Counts one use of a prompt. Not needed for `create_generation`, which counts its prompt itself."""
    return prompts.count_use(session, text)


def get_prompt(session: Session, prompt_id: int) -> Prompt | None:
    """Returns the prompt, or None if there is none with this id."""
    return session.get(Prompt, prompt_id)


def get_prompt_by_text(session: Session, text: str) -> Prompt | None:
    """Returns the prompt with exactly this text, or None if it was never used."""
    return prompts.find(session, text)


def get_all_prompts(session: Session, limit: int = 100, offset: int = 0) -> list[Prompt]:
    """Returns prompts, most recently used first."""
    by_last_use = select(Prompt).order_by(Prompt.last_used_at.desc(), Prompt.id.desc())
    return list(session.scalars(by_last_use.limit(limit).offset(offset)))


def get_most_used_prompts(session: Session, limit: int = 10) -> list[Prompt]:
    """Returns prompts, most used first."""
    most_used = select(Prompt).order_by(Prompt.used_count.desc(), Prompt.id.desc())
    return list(session.scalars(most_used.limit(limit)))


def get_database_stats(session: Session) -> dict[str, int]:
    """Returns the number of generations, in total and in each state, and the number of prompts."""
    statistics = compute_statistics(session)
    by_status = {f"{status.value}_generations": count for status, count in statistics.overall.by_status.items()}
    return {
        "total_generations": statistics.overall.total_generations,
        **by_status,
        "total_prompts": statistics.total_prompts,
    }


def _require_database() -> Database:
    if _database is None:
        raise FailedPrecondition("no database is open; call init_db() first", reason="DATABASE_NOT_OPEN")
    return _database


def _require_generation(session: Session, generation_id: str) -> Generation:
    generation = session.get(Generation, generation_id)
    if generation is None:
        raise NotFound("generation", generation_id)
    return generation


def _seconds_since_start(session: Session, generation: Generation) -> float:
    current = session.scalars(select(now())).one()
    return (current - (generation.started_at or current)).total_seconds()


def _parse_status(status: GenerationStatus | str) -> GenerationStatus:
    try:
        return GenerationStatus(status)
    except ValueError as error:
        names = ", ".join(GenerationStatus)
        raise InvalidArgument("status", f"must be one of {names}, not {status!r}") from error
