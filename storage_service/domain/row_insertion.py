"""The insertion of a generation's row, once per request id."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import Executable, bindparam, inspect, select
from sqlalchemy.orm import Session, make_transient_to_detached

from dgx_music.errors import InvalidArgument
from storage_service.db.clock import now
from storage_service.db.models import Generation, draw_seed
from storage_service.db.upsert import dialect_name, insert_into
from storage_service.domain import lineage, prompts
from storage_service.domain.queue_metrics import CREATED
from storage_service.events.changes import Change, record_change
from storage_service.search.musical_properties import musical_columns
from storage_service.states import GenerationStatus

if TYPE_CHECKING:
    from storage_service.domain.creation import NewGeneration

_EMPTY_COLUMNS: dict[str, Any] = dict.fromkeys(attribute.key for attribute in inspect(Generation).column_attrs)
"""The columns of a row to which no value was given."""


_PARAMETERS = (
    *("id", "prompt", "model_name", "model_version", "status", "duration_seconds", "sample_rate", "channels", "seed"),
    *("output", "file_path", "sampling", "request_id", "request_fingerprint", "priority", "ranked_at"),
    *("continuation", "conditioning", "edit", "loop", "variation_of"),
    *("bpm", "music_key"),
    *("client", "weight", "trace_parent", "attempt", "max_attempts", "progress"),
)
"""The columns that are set by a parameter of their name."""


@dataclass(frozen=True)
class Origin:
    """Whose call creates a generation."""

    client: str = ""
    """The client's name; empty if nobody said it."""
    trace_parent: str | None = None
    """The W3C trace context of the call."""


def insert(
    session: Session,
    new: NewGeneration,
    origin: Origin,
    rank: datetime,
    max_attempts: int,
    *,
    file_path: str | None,
    model_version: str | None,
    counts_prompt: bool,
    weight: float = 1.0,
) -> tuple[Generation, bool]:
    """Returns the row, and whether it was created now. `counts_prompt`, on Postgres: in the same round trip."""
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
        "continuation": new.continuation and dict(new.continuation),
        "conditioning": dict(new.conditioning) or None,
        "edit": new.edit and dict(new.edit),
        "loop": new.loop and dict(new.loop),
        "variation_of": new.variation_of,
        "metadata_": dict(new.metadata),
        **musical_columns(new.metadata),
        "request_id": request_id,
        "request_fingerprint": new.fingerprint() if request_id else None,
        "priority": new.priority,
        "ranked_at": rank,
        "client": origin.client,
        "weight": None if weight == 1.0 else weight,
        "trace_parent": origin.trace_parent,
        "attempt": 0,
        "max_attempts": new.max_attempts or max_attempts,
        "progress": 0.0,
    }
    dialect, connection = dialect_name(session), session.connection()
    values = dict(row)
    if counts_prompt:
        values["text_sha256"] = prompts.text_sha256(new.prompt)
    while True:
        inserted = connection.execute(_insert_statement(dialect, counts_prompt=counts_prompt), values).one_or_none()
        if inserted is not None:
            CREATED.inc()
            record_change(session, change)
            created = _attach_row(session, {**row, "created_at": inserted.created_at})
            lineage.insert_links(session, created)
            return created, True
        earlier = find_by_request_id(session, new)
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
def _insert_statement(dialect: str, *, counts_prompt: bool) -> Executable:
    """Returns the INSERT, which is built once per dialect: building it takes longer than running it."""
    columns = Generation.__table__.c
    statement = insert_into(dialect, Generation).values(
        created_at=now(),
        metadata=bindparam("metadata_", type_=columns.metadata.type),
    )
    idempotent = statement.on_conflict_do_nothing(index_elements=[columns.request_id])
    if not counts_prompt:
        return idempotent.returning(columns.created_at)
    # In a WITH, SQLAlchemy does not derive the columns from the parameters.
    named = {name: bindparam(name, type_=columns[name].type) for name in _PARAMETERS}
    inserted = idempotent.values(named).returning(columns.created_at).cte()
    return select(inserted.c.created_at).add_cte(prompts.count_use_with(inserted))


def find_by_request_id(session: Session, new: NewGeneration) -> Generation | None:
    """Returns the generation that the same request created, or None. Raises InvalidArgument if another one did."""
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
