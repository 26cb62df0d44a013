"""Generations and prompts, as SQLAlchemy models."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, ColumnElement, Enum, Index, Integer, SmallInteger, Text, inspect, text, update
from sqlalchemy.orm import Mapped, mapped_column, object_session

from storage_service.db.clock import UtcDateTime, now
from storage_service.db.counts import GenerationCount as GenerationCount  # Base.metadata is to know these tables too.
from storage_service.db.declarative_base import Base as Base
from storage_service.db.declarative_base import partial_index
from storage_service.db.identifier import UuidText
from storage_service.db.packed_json import PackedJson
from storage_service.events.changes import Change, record_change
from storage_service.states import (
    FINISHED,
    GenerationStage,
    GenerationStatus,
    illegal_transition,
    sources_of,
)

RETURNED_ROW_WINS = {"populate_existing": True, "synchronize_session": False}
"""Execution options of an UPDATE … RETURNING: objects of the session take the row as it is now."""

ENDED = {"stage": None, "lease_expires_at": None}
"""What a row has that nobody works on any more. The token stays, for its holder to be answered by."""
FINAL: dict[str, Any] = {**ENDED, "ranked_at": None}
"""What a row has that nobody can have tried again: its turn is no matter now."""

_SEEDS = 2**32


def draw_seed() -> int:
    """A seed for who gave none: 0 to 2³²-1, from the system's random source."""
    return secrets.randbelow(_SEEDS)


def _texts_of(enum: type[GenerationStatus]) -> list[str]:
    return [member.value for member in enum]


class Generation(Base):
    """A request for music and all that became of it. Has its id and status from construction on.

    The `mark_…` methods move it by the state machine: on a row of the database in one fenced UPDATE, whose row count
    decides. FailedPrecondition where the move is illegal or somebody else moved it first.
    """

    __tablename__ = "generations"
    # Lists go by (created_at, id); rows of one microsecond are so few that the id need not be in each index.
    __table_args__ = (
        Index(None, "created_at"),
        Index(None, "status", "created_at"),
        Index(None, "model_name", "created_at"),
        partial_index("generations_queue", "status = 'pending'", "model_name", "ranked_at", "id"),
        partial_index("generations_waiting", "not_before IS NOT NULL", "not_before"),
        # With the status, which all of them share: SQLite would rather take the index above that begins with it.
        partial_index("generations_leases", "status = 'processing'", "status", "lease_expires_at"),
    )

    id: Mapped[str] = mapped_column(UuidText, primary_key=True)
    prompt: Mapped[str] = mapped_column(Text)
    model_name: Mapped[str] = mapped_column(Text)
    model_version: Mapped[str | None] = mapped_column(Text)
    status: Mapped[GenerationStatus] = mapped_column(
        Enum(
            GenerationStatus,
            name="status",
            native_enum=False,
            length=16,
            create_constraint=True,
            values_callable=_texts_of,
        )
    )
    duration_seconds: Mapped[float]
    sample_rate: Mapped[int]
    channels: Mapped[int]
    seed: Mapped[int] = mapped_column(BigInteger, default=draw_seed)
    file_path: Mapped[str | None] = mapped_column(Text)
    file_size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, insert_default=now())
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    completed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    generation_time_seconds: Mapped[float | None]
    error_message: Mapped[str | None] = mapped_column(Text)
    # A declarative class keeps `metadata` for its own use.
    metadata_: Mapped[Mapping[str, Any]] = mapped_column("metadata", PackedJson, default=dict)
    sampling: Mapped[Mapping[str, float] | None] = mapped_column(JSON(none_as_null=True))
    """What was asked for of temperature, top_k, top_p and guidance_scale."""
    continuation: Mapped[Mapping[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """What it goes on from: source_id and seconds."""
    output: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """What the file is to be, where it differs from the default: format, sample_rate_hz, channels, loudness."""
    request_id: Mapped[str | None] = mapped_column(UuidText, unique=True)
    request_fingerprint: Mapped[str | None] = mapped_column(Text)
    priority: Mapped[int] = mapped_column(SmallInteger, default=0, server_default=text("0"))
    """Higher first: -10 to 10."""
    ranked_at: Mapped[datetime | None] = mapped_column(UtcDateTime, insert_default=now())
    """created_at, brought forward for each level of priority: the order of claims. None where it is COMPLETED or
    CANCELLED, and is not claimed again."""
    attempt: Mapped[int] = mapped_column(default=0)
    max_attempts: Mapped[int] = mapped_column(default=3)
    not_before: Mapped[datetime | None] = mapped_column(UtcDateTime)
    lease_token: Mapped[str | None] = mapped_column(Text)
    lease_expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    worker_id: Mapped[str | None] = mapped_column(Text)
    stage: Mapped[str | None] = mapped_column(Text)
    progress: Mapped[float] = mapped_column(default=0.0)

    def __init__(self, *, metadata: Mapping[str, Any] | None = None, **values: Any) -> None:
        values.setdefault("id", str(uuid.uuid4()))
        values["status"] = GenerationStatus(values.get("status", GenerationStatus.PENDING))
        super().__init__(metadata_=dict(metadata or {}), **values)

    @property
    def is_pending(self) -> bool:
        """Waits for a worker."""
        return self.status is GenerationStatus.PENDING

    @property
    def is_processing(self) -> bool:
        """Somebody works on it."""
        return self.status is GenerationStatus.PROCESSING

    @property
    def is_complete(self) -> bool:
        """Its file is in place."""
        return self.status is GenerationStatus.COMPLETED

    @property
    def is_failed(self) -> bool:
        """It could not be made."""
        return self.status is GenerationStatus.FAILED

    @property
    def is_finished(self) -> bool:
        """COMPLETED, FAILED or CANCELLED."""
        return self.status in FINISHED

    def mark_processing(self) -> None:
        """PENDING → PROCESSING, without a lease: it stays so until it is marked otherwise."""
        values = {"started_at": now(), "stage": GenerationStage.QUEUED.value, "attempt": (self.attempt or 0) + 1}
        self._move(GenerationStatus.PROCESSING, values | {"not_before": None})

    def mark_completed(self, generation_time: float) -> None:
        """PROCESSING → COMPLETED, after `generation_time` seconds of work."""
        values = {"completed_at": now(), "generation_time_seconds": generation_time, "progress": 1.0, **FINAL}
        self._move(GenerationStatus.COMPLETED, values | {"error_message": None})

    def mark_failed(self, error_message: str) -> None:
        """PROCESSING → FAILED."""
        values = {"completed_at": now(), "error_message": error_message, **ENDED}
        self._move(GenerationStatus.FAILED, values)

    def mark_cancelled(self) -> None:
        """PENDING or PROCESSING → CANCELLED."""
        self._move(GenerationStatus.CANCELLED, {"completed_at": now(), "not_before": None, **FINAL})

    def mark_pending(self) -> None:
        """PROCESSING or FAILED → PENDING. Out of FAILED, attempts are counted anew."""
        values: dict[str, Any] = {"completed_at": None, "stage": None, "progress": 0.0, "not_before": None}
        values |= {"lease_token": None, "lease_expires_at": None}
        if self.is_failed:
            values |= {"attempt": 0, "started_at": None, "error_message": None}
        self._move(GenerationStatus.PENDING, values)

    def get_metadata(self) -> dict[str, Any]:
        """What is known of the music, as a copy."""
        return dict(self.metadata_)

    def set_metadata(self, metadata: Mapping[str, Any]) -> None:
        """Replaces what is known of the music."""
        self.metadata_ = dict(metadata)

    def to_dict(self) -> dict[str, Any]:
        """All that a caller may see, as JSON's types; times are ISO 8601 in UTC. The lease token is the worker's."""
        hidden = {"lease_token", "request_fingerprint"}
        columns = {column.key: attribute for attribute, column in inspect(Generation).columns.items()}
        row = {name: getattr(self, attribute) for name, attribute in columns.items() if name not in hidden}
        times = {name: value.isoformat() for name, value in row.items() if isinstance(value, datetime)}
        return {**row, **times, "status": self.status.value, "metadata": self.get_metadata()}

    def _move(self, target: GenerationStatus, values: Mapping[str, Any]) -> None:
        allowed = sources_of(target)
        if self.status not in allowed:
            raise illegal_transition(self.id, f"mark {target}", self.status, allowed)
        session = object_session(self)
        if session is None:
            self.status = target
            for name, value in values.items():
                setattr(self, name, datetime.now(UTC) if isinstance(value, ColumnElement) else value)
            return
        session.flush()
        statement = (
            update(Generation)
            .where(
                Generation.id == self.id,
                Generation.status == self.status,
                Generation.lease_token.is_not_distinct_from(self.lease_token),
            )
            .values(status=target, **values)
            .returning(Generation)
        )
        if session.scalars(statement, execution_options=RETURNED_ROW_WINS).one_or_none() is None:
            session.refresh(self)
            raise illegal_transition(self.id, f"mark {target}", self.status, allowed)
        record_change(session, Change(self.id, self.model_name, is_claimable=self.is_pending))


class Prompt(Base):
    """A distinct prompt text and its use.

    Uniqueness hangs on the text's hash: an index entry in Postgres holds 2704 bytes, a prompt up to 40000. The hash is
    the first 128 bits of SHA-256, in hex.
    """

    __tablename__ = "prompts"
    __table_args__ = (
        Index(None, "used_count", "id"),
        Index(None, "last_used_at"),
        {"sqlite_autoincrement": True},
    )

    # Only an INTEGER key counts up by itself on SQLite, where it has 64 bits anyway.
    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    text: Mapped[str] = mapped_column(Text)
    text_sha256: Mapped[str] = mapped_column(Text, unique=True)
    used_count: Mapped[int] = mapped_column(BigInteger, default=1)
    first_used_at: Mapped[datetime] = mapped_column(UtcDateTime, insert_default=now())
    last_used_at: Mapped[datetime] = mapped_column(UtcDateTime, insert_default=now())

    def increment_usage(self) -> None:
        """Counts one more use, now."""
        session = object_session(self)
        if session is None:
            self.used_count = (self.used_count or 0) + 1
            self.last_used_at = datetime.now(UTC)
            return
        session.flush()
        use = update(Prompt).where(Prompt.id == self.id).values(used_count=Prompt.used_count + 1, last_used_at=now())
        session.scalars(use.returning(Prompt), execution_options=RETURNED_ROW_WINS).one()

    def to_dict(self) -> dict[str, Any]:
        """As JSON's types; times are ISO 8601 in UTC."""
        return {
            "id": self.id,
            "text": self.text,
            "used_count": self.used_count,
            "first_used_at": self.first_used_at.isoformat(),
            "last_used_at": self.last_used_at.isoformat(),
        }
