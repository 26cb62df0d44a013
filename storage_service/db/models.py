"""Generations and prompts, as SQLAlchemy models."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    ColumnElement,
    Double,
    Enum,
    Index,
    Integer,
    SmallInteger,
    Text,
    inspect,
    text,
    update,
)
from sqlalchemy.orm import Mapped, mapped_column, object_session

from storage_service.db.access_models import Token as Token  # Registers these tables in Base.metadata.
from storage_service.db.clock import UtcDateTime, not_before, now
from storage_service.db.counts import GenerationCount as GenerationCount  # Likewise.
from storage_service.db.declarative_base import Base as Base
from storage_service.db.declarative_base import partial_index
from storage_service.db.dependent_models import Checkpoint as Checkpoint  # Likewise.
from storage_service.db.dependent_models import Comparison as Comparison
from storage_service.db.dependent_models import ParentLink as ParentLink
from storage_service.db.types import PackedJson, UuidText
from storage_service.events.changes import Change, record_change
from storage_service.states import (
    TERMINAL_STATES,
    GenerationStage,
    GenerationStatus,
    illegal_transition_error,
    source_states,
)

REFRESH_FROM_RETURNING = {"populate_existing": True, "synchronize_session": False}
"""Execution options of an UPDATE … RETURNING that refresh the session's objects from the returned rows."""

FINISHED_COLUMNS = {"stage": None, "lease_expires_at": None, "lease_check_at": None, "ranked_at": None}
"""Columns of a row on which no worker works any more. The token stays, so that its holder gets a precise answer."""


def draw_seed() -> int:
    """Returns a seed from 0 to 2³²-1 from the system's random source, for a request that has none."""
    return secrets.randbelow(2**32)


class Generation(Base):
    """A request for music and its outcome. It has its id and status from construction on.

    The `mark_…` methods perform transitions of the state machine. If the object is in a session, each is a single
    UPDATE that checks state and lease token; its row count decides. They raise FailedPrecondition if the transition is
    illegal or another one came first.
    """

    __tablename__ = "generations"
    # Lists are ordered by (created_at, id), but so few rows share a microsecond that the indexes can omit the id.
    __table_args__ = (
        Index(None, "created_at"),
        Index(None, "status", "created_at"),
        Index(None, "model_name", "created_at"),
        partial_index("generations_queue", "status = 'pending'", "model_name", "ranked_at", "created_at"),
        # Of the generations in the queue, those of each client in their order.
        partial_index("generations_queued", "ranked_at IS NOT NULL", "client", "ranked_at", "priority"),
        partial_index("generations_waiting", "not_before IS NOT NULL", "not_before"),
        # Includes the status, which is the same in all entries: SQLite would otherwise prefer the status index above.
        partial_index("generations_leases", "status = 'processing'", "status", "lease_check_at"),
        partial_index("generations_rated", "rating IS NOT NULL", "rating", "created_at"),
        partial_index("generations_clients", "client <> ''", "client", "created_at"),
        partial_index("generations_bpm", "bpm IS NOT NULL OR music_key IS NOT NULL", "created_at", "bpm", "music_key"),
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
            values_callable=lambda states: [state.value for state in states],
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
    metadata_: Mapped[Mapping[str, Any]] = mapped_column("metadata", PackedJson, default=dict)  # A reserved name.
    sampling: Mapped[Mapping[str, float] | None] = mapped_column(JSON(none_as_null=True))
    """Those of temperature, top_k, top_p and guidance_scale that were requested."""
    continuation: Mapped[Mapping[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """What the generation continues: source_id and seconds."""
    conditioning: Mapped[Mapping[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """The fields of the contract's Conditioning that were requested; `edit` and `loop` likewise."""
    edit: Mapped[Mapping[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    loop: Mapped[Mapping[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    variation_of: Mapped[str | None] = mapped_column(UuidText)
    """The generation of which it is a variation, which may be deleted."""
    output: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    """The output options that differ from the default: format, sample_rate_hz, channels, loudness."""
    request_id: Mapped[str | None] = mapped_column(UuidText, unique=True)
    request_fingerprint: Mapped[str | None] = mapped_column(Text)
    priority: Mapped[int] = mapped_column(SmallInteger, default=0, server_default=text("0"))
    """From -10 to 10; the highest is claimed first."""
    ranked_at: Mapped[datetime | None] = mapped_column(UtcDateTime, insert_default=now())
    """The place in the queue (see `domain/queue.py`); None unless PENDING or PROCESSING."""
    attempt: Mapped[int] = mapped_column(default=0)
    max_attempts: Mapped[int] = mapped_column(default=3)
    not_before: Mapped[datetime | None] = mapped_column(UtcDateTime)
    lease_token: Mapped[str | None] = mapped_column(Text)
    lease_expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    lease_check_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """From when on to look whether the lease has expired, which is before it does. Most renewals leave it as it is: if
    an indexed column changes, Postgres writes to all indexes of the row."""
    worker_id: Mapped[str | None] = mapped_column(Text)
    stage: Mapped[str | None] = mapped_column(Text)
    progress: Mapped[float] = mapped_column(default=0.0)
    export_address: Mapped[str | None] = mapped_column(Text)
    """Where the export server is that has the samples of the last attempt. Another attempt begins there."""
    rating: Mapped[int | None] = mapped_column(SmallInteger)
    """The user's rating, 1 to 5."""
    bpm: Mapped[float | None] = mapped_column(Double)
    music_key: Mapped[str | None] = mapped_column(Text)  # Both as in the metadata: `search/musical_properties.py`.
    client: Mapped[str] = mapped_column(Text, default="", server_default=text("''"))
    """Who created it; empty if nobody said so, or if it is older than this column."""
    weight: Mapped[float | None] = mapped_column(Double)
    """The weight of its client when it was created; None for 1, which takes no space."""
    trace_parent: Mapped[str | None] = mapped_column(Text)
    """W3C trace context of the call that created it."""

    def __init__(self, *, metadata: Mapping[str, Any] | None = None, **values: Any) -> None:
        values.setdefault("id", str(uuid.uuid4()))
        values["status"] = GenerationStatus(values.get("status", GenerationStatus.PENDING))
        super().__init__(metadata_=dict(metadata or {}), **values)

    @property
    def is_pending(self) -> bool:
        """Whether it waits for a worker."""
        return self.status is GenerationStatus.PENDING

    @property
    def is_processing(self) -> bool:
        """Whether a worker is working on it."""
        return self.status is GenerationStatus.PROCESSING

    @property
    def is_complete(self) -> bool:
        """Whether it is COMPLETED, that is, its file exists."""
        return self.status is GenerationStatus.COMPLETED

    @property
    def is_failed(self) -> bool:
        """Whether it has FAILED."""
        return self.status is GenerationStatus.FAILED

    @property
    def is_finished(self) -> bool:
        """Whether it is COMPLETED, FAILED or CANCELLED."""
        return self.status in TERMINAL_STATES

    def mark_processing(self) -> None:
        """PENDING → PROCESSING, without a lease: it stays PROCESSING until it is marked otherwise."""
        values = {"started_at": now(), "stage": GenerationStage.QUEUED.value, "attempt": (self.attempt or 0) + 1}
        self._transition_to(GenerationStatus.PROCESSING, values | {"not_before": None})

    def mark_completed(self, generation_time: float) -> None:
        """PROCESSING → COMPLETED, after `generation_time` seconds of work."""
        values = {
            "completed_at": now(),
            "generation_time_seconds": generation_time,
            "progress": 1.0,
            **FINISHED_COLUMNS,
        }
        self._transition_to(GenerationStatus.COMPLETED, values | {"error_message": None})

    def mark_failed(self, error_message: str) -> None:
        """PROCESSING → FAILED."""
        values = {"completed_at": now(), "error_message": error_message, **FINISHED_COLUMNS}
        self._transition_to(GenerationStatus.FAILED, values)

    def mark_cancelled(self) -> None:
        """PENDING or PROCESSING → CANCELLED."""
        self._transition_to(GenerationStatus.CANCELLED, {"completed_at": now(), "not_before": None, **FINISHED_COLUMNS})

    def mark_pending(self) -> None:
        """PROCESSING or FAILED → PENDING. From FAILED, the count of attempts restarts at 0."""
        values: dict[str, Any] = {"completed_at": None, "stage": None, "progress": 0.0, "not_before": None}
        values |= {"lease_token": None, "lease_expires_at": None, "lease_check_at": None}
        if self.is_failed:
            values |= {"attempt": 0, "started_at": None, "error_message": None, "ranked_at": now()}
        self._transition_to(GenerationStatus.PENDING, values)

    def get_metadata(self) -> dict[str, Any]:
        """Returns a copy of the metadata."""
        return dict(self.metadata_)

    def set_metadata(self, metadata: Mapping[str, Any]) -> None:
        """Replaces the metadata."""
        self.metadata_ = dict(metadata)

    def to_dict(self) -> dict[str, Any]:
        """Returns all public columns as JSON types, with times in ISO 8601 and UTC. The lease token is not public."""
        hidden = {"lease_token", "lease_check_at", "request_fingerprint"}
        columns = {column.key: attribute for attribute, column in inspect(Generation).columns.items()}
        row = {name: getattr(self, attribute) for name, attribute in columns.items() if name not in hidden}
        times = {name: value.isoformat() for name, value in row.items() if isinstance(value, datetime)}
        return {**row, **times, "status": self.status.value, "metadata": self.get_metadata()}

    def _transition_to(self, target: GenerationStatus, values: Mapping[str, Any]) -> None:
        allowed = source_states(target)
        if self.status not in allowed:
            raise illegal_transition_error(self.id, f"mark {target}", self.status, allowed)
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
        if session.scalars(statement, execution_options=REFRESH_FROM_RETURNING).one_or_none() is None:
            session.refresh(self)
            raise illegal_transition_error(self.id, f"mark {target}", self.status, allowed)
        record_change(session, Change(self.id, self.model_name, is_claimable=self.is_pending))


class Prompt(Base):
    """A distinct prompt text and its use.

    The unique index is on a hash of the text: an index entry in Postgres holds 2704 bytes, whereas a prompt may take
    40000. The hash is the first 128 bits of SHA-256, in hex.
    """

    __tablename__ = "prompts"
    __table_args__ = (
        Index(None, "used_count", "id"),
        Index(None, "last_used_at"),
        {"sqlite_autoincrement": True},
    )

    # On SQLite only an INTEGER key, which has 64 bits there, is generated automatically.
    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    text: Mapped[str] = mapped_column(Text)
    text_sha256: Mapped[str] = mapped_column(Text, unique=True)
    used_count: Mapped[int] = mapped_column(BigInteger, default=1)
    first_used_at: Mapped[datetime] = mapped_column(UtcDateTime, insert_default=now())
    last_used_at: Mapped[datetime] = mapped_column(UtcDateTime, insert_default=now())

    def increment_usage(self) -> None:
        """Counts one more use at the current time."""
        session = object_session(self)
        if session is None:
            self.used_count = (self.used_count or 0) + 1
            self.last_used_at = datetime.now(UTC)
            return
        session.flush()
        values = {"used_count": Prompt.used_count + 1, "last_used_at": not_before(Prompt.last_used_at)}
        use = update(Prompt).where(Prompt.id == self.id).values(values)
        session.scalars(use.returning(Prompt), execution_options=REFRESH_FROM_RETURNING).one()

    def to_dict(self) -> dict[str, Any]:
        """Returns all columns as JSON types, with times in ISO 8601 and UTC."""
        return {
            "id": self.id,
            "text": self.text,
            "used_count": self.used_count,
            "first_used_at": self.first_used_at.isoformat(),
            "last_used_at": self.last_used_at.isoformat(),
        }
