"""The creation of a generation: its row and the use of its prompt, in one transaction, once per request id."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from sqlalchemy import Executable, Integer, Text, bindparam, func, inspect, select
from sqlalchemy.orm import Session, make_transient_to_detached

from dgx_music.errors import InvalidArgument
from dgx_music.limits import (
    MAX_BATCH_SIZE,
    MAX_CHANNELS,
    MAX_DURATION_SECONDS,
    MAX_PRIORITY,
    MAX_SAMPLE_RATE_HZ,
    MIN_DURATION_SECONDS,
    MIN_PRIORITY,
    MIN_SAMPLE_RATE_HZ,
)
from service_runtime.audio.output_options import OutputOptions
from service_runtime.validation import check_prompt, check_range, check_sampling, check_seed, check_uuid
from storage_service.db.clock import now
from storage_service.db.models import Generation, draw_seed
from storage_service.db.upsert import dialect_name, insert_into
from storage_service.domain import prompts, queue
from storage_service.domain.continuation import Continuation
from storage_service.domain.request_validation import check_metadata, check_name
from storage_service.events.changes import CHANNEL, Change, build_announcement, record_change
from storage_service.states import GenerationStatus

MAX_ATTEMPTS_RANGE = (1, 20)
"""The lowest and the highest number of attempts that a request may ask for."""


_EMPTY_COLUMNS: dict[str, Any] = dict.fromkeys(attribute.key for attribute in inspect(Generation).column_attrs)
"""The columns of a row to which no value was given."""


@dataclass(frozen=True)
class NewGeneration:
    """A request for a generation. Errors use the field names of CreateGenerationRequest."""

    prompt: str
    model_name: str
    duration_seconds: float
    sample_rate: int
    channels: int
    seed: int | None = None
    output: OutputOptions = field(default_factory=OutputOptions)
    sampling: Mapping[str, float] = field(default_factory=dict)
    continuation: Continuation | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    priority: int = 0
    max_attempts: int | None = None
    """None for the server's default."""
    request_id: str | None = None

    def check(self) -> None:
        """Raises InvalidArgument for the first invalid field."""
        if self.request_id is not None:
            check_uuid("request_id", self.request_id)
        check_prompt("prompt", self.prompt)
        check_name("model_name", self.model_name)
        check_range("duration_seconds", self.duration_seconds, MIN_DURATION_SECONDS, MAX_DURATION_SECONDS, "s")
        check_range("sample_rate_hz", self.sample_rate, MIN_SAMPLE_RATE_HZ, MAX_SAMPLE_RATE_HZ, "Hz")
        check_range("channels", self.channels, 1, MAX_CHANNELS)
        if self.seed is not None:
            check_seed("seed", self.seed)
        self.output.check("output")
        self.output.check_for_source("output", self.sample_rate, self.channels, self.duration_seconds)
        check_sampling("sampling", self.sampling)
        if self.continuation is not None:
            self.continuation.check("continuation")
        check_metadata("metadata", self.metadata)
        check_range("priority", self.priority, MIN_PRIORITY, MAX_PRIORITY)
        if self.max_attempts is not None:
            check_range("max_attempts", self.max_attempts, *MAX_ATTEMPTS_RANGE)

    def fingerprint(self) -> str:
        """Returns a hash that equal requests share: 64 bits of SHA-256, in hex, over all fields but the request id."""
        body = {name: value for name, value in vars(self).items() if name != "request_id"}
        body["continuation"] = self.continuation and self.continuation.to_dict()
        body["output"] = self.output.to_dict()
        for name in ("sampling", "continuation", "output", "priority", "max_attempts"):
            if not body[name]:
                # Omitted as before the field existed: a request from before an upgrade may be repeated after it.
                del body[name]
        return hashlib.sha256(json.dumps(body, sort_keys=True, default=dict).encode()).hexdigest()[:16]


def create(
    session: Session,
    new: NewGeneration,
    *,
    max_attempts: int = 3,
    file_path: str | None = None,
    model_version: str | None = None,
) -> Generation:
    """Creates a PENDING generation and counts its prompt, or returns the one that the same request created before.

    Raises InvalidArgument for an invalid field, and for `request_id` if it was used for a different request.
    """
    new.check()
    row, is_new = _insert(session, new, max_attempts, file_path=file_path, model_version=model_version)
    if is_new:
        prompts.count_uses(session, [new.prompt])
    return row


def create_all(session: Session, requests: Sequence[NewGeneration], *, max_attempts: int = 3) -> list[Generation]:
    """Does what `create` does for each request, in order. Errors name the field as "requests[2].prompt"."""
    if not 1 <= len(requests) <= MAX_BATCH_SIZE:
        raise InvalidArgument("requests", f"must contain 1 to {MAX_BATCH_SIZE} requests, not {len(requests)}")
    rows, texts = [], []
    for index, new in enumerate(requests):
        try:
            new.check()
            row, is_new = _insert(session, new, max_attempts)
        except InvalidArgument as error:
            raise InvalidArgument(f"requests[{index}].{error.field}", error.problem, reason=error.reason) from error
        rows.append(row)
        texts += [new.prompt] * is_new
    prompts.count_uses(session, texts)
    return rows


def _insert(
    session: Session,
    new: NewGeneration,
    max_attempts: int,
    *,
    file_path: str | None = None,
    model_version: str | None = None,
) -> tuple[Generation, bool]:
    """Returns the row, and whether it was created now."""
    request_id = new.request_id and new.request_id.lower()
    change = Change(str(uuid.uuid4()), new.model_name, is_claimable=True)
    row = {
        "id": change.generation_id,
        "prompt": new.prompt,
        "model_name": new.model_name,
        "model_version": model_version,
        "status": GenerationStatus.PENDING,
        "duration_seconds": new.duration_seconds,
        "sample_rate": new.sample_rate,
        "channels": new.channels,
        "seed": draw_seed() if new.seed is None else new.seed,
        "output": new.output.to_dict() or None,
        "file_path": file_path,
        "sampling": dict(new.sampling) or None,
        "continuation": new.continuation and new.continuation.to_dict(),
        "metadata_": dict(new.metadata),
        "request_id": request_id,
        "request_fingerprint": new.fingerprint() if request_id else None,
        "priority": new.priority,
        "attempt": 0,
        "max_attempts": new.max_attempts or max_attempts,
        "progress": 0.0,
    }
    dialect, connection = dialect_name(session), session.connection()
    values = {**row, "priority_of_rank": new.priority}
    if dialect == "postgresql":
        values["announcement"] = build_announcement(session, change)
    while True:
        inserted = connection.execute(_insert_statement(dialect), values).one_or_none()
        if inserted is not None:
            record_change(session, change, is_announced=True)
            return _attach_row(
                session, {**row, "created_at": inserted.created_at, "ranked_at": inserted.ranked_at}
            ), True
        earlier = _find_by_request_id(session, new)
        if earlier is not None:  # Otherwise it has been deleted meanwhile, and the insert is tried again.
            return earlier, False


def _attach_row(session: Session, row: Mapping[str, Any]) -> Generation:
    """Returns the object that loading the new row would give, in a fifth of the time."""
    generation: Generation = inspect(Generation).class_manager.new_instance()
    vars(generation).update({**_EMPTY_COLUMNS, **row})
    make_transient_to_detached(generation)
    session.add(generation)
    return generation


@cache
def _insert_statement(dialect: str) -> Executable:
    """Returns the INSERT, which is built once per dialect: building it takes longer than running it."""
    columns = Generation.__table__.c
    statement = insert_into(dialect, Generation).values(
        created_at=now(),
        ranked_at=queue.compute_rank(bindparam("priority_of_rank", type_=Integer)),
        metadata=bindparam("metadata_", type_=columns.metadata.type),
    )
    idempotent = statement.on_conflict_do_nothing(index_elements=[columns.request_id])
    if dialect == "sqlite":
        return idempotent.returning(columns.created_at, columns.ranked_at)
    # Part of the INSERT, the notification needs no round trip of its own.
    notification = func.pg_notify(CHANNEL, bindparam("announcement", type_=Text))
    return idempotent.returning(columns.created_at, columns.ranked_at, notification)


def _find_by_request_id(session: Session, new: NewGeneration) -> Generation | None:
    with_request_id = select(Generation).where(Generation.request_id == str(new.request_id).lower())
    earlier = session.scalars(with_request_id).one_or_none()
    if earlier is None:
        return None
    # Rows created before revision 0003 of the schema have all 256 bits.
    if (earlier.request_fingerprint or "")[:16] != new.fingerprint():
        raise InvalidArgument(
            "request_id",
            f"was used for a different request, which created generation {earlier.id}; use a new UUID",
            reason="REQUEST_ID_REUSED",
        )
    return earlier
