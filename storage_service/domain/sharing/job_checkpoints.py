"""What was done of a generation that was handed back, until it ends."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from dgx_music.errors import InvalidArgument
from dgx_music.limits import MAX_CHECKPOINT_BYTES
from storage_service.db.clock import now
from storage_service.db.dependent_models import Checkpoint
from storage_service.db.upsert import dialect_name, insert_into


def check_checkpoint(data: bytes) -> None:
    """Raises InvalidArgument if it is too large."""
    if len(data) > MAX_CHECKPOINT_BYTES:
        raise InvalidArgument(
            "checkpoint", f"may have {MAX_CHECKPOINT_BYTES} bytes, not {len(data)}; hand the generation back without it"
        )


def save(session: Session, generation_id: str, data: bytes) -> None:
    """Keeps `data`. If it is empty, keeps that of an earlier attempt, which is still valid."""
    statement = insert_into(dialect_name(session), Checkpoint)
    changed = {"saved_at": now(), **({"data": statement.excluded.data} if data else {})}
    upsert = statement.values(saved_at=now()).on_conflict_do_update(index_elements=["generation_id"], set_=changed)
    session.connection().execute(upsert, {"generation_id": generation_id, "data": data})


def read(session: Session, generation_id: str) -> bytes:
    """Returns what was saved; empty if nothing was."""
    return session.scalar(select(Checkpoint.data).where(Checkpoint.generation_id == generation_id)) or b""


def drop(session: Session, generation_ids: Collection[str]) -> None:
    """Deletes those of generations that have ended."""
    statement = delete(Checkpoint).where(Checkpoint.generation_id.in_(generation_ids))
    session.execute(statement, execution_options={"synchronize_session": False})
