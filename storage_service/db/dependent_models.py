"""What belongs to a generation besides its row, as SQLAlchemy models: its sources, and what was done of it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, LargeBinary, Text
from sqlalchemy.orm import Mapped, mapped_column

from storage_service.db.clock import UtcDateTime, now
from storage_service.db.declarative_base import Base
from storage_service.db.types import UuidText


class ParentLink(Base):
    """One use of a generation or a clip for another generation. It is deleted with that one, and outlives its parent.

    The generation's row has the same ids, with all about how they are used; here they can be found in both directions.
    """

    __tablename__ = "parents"
    __table_args__ = (Index(None, "parent_id"),)

    child_id: Mapped[str] = mapped_column(
        UuidText,
        ForeignKey("generations.id", name="fk_parents_child_id", ondelete="CASCADE"),
        primary_key=True,
    )
    parent_id: Mapped[str] = mapped_column(UuidText, primary_key=True)
    """A generation or a clip."""
    relation: Mapped[str] = mapped_column(Text, primary_key=True)
    """A `LineageRelation`."""


class Checkpoint(Base):
    """What a worker has done of a generation that it handed back. It is deleted when the generation ends."""

    __tablename__ = "checkpoints"

    generation_id: Mapped[str] = mapped_column(
        UuidText,
        ForeignKey("generations.id", name="fk_checkpoints_generation_id", ondelete="CASCADE"),
        primary_key=True,
    )
    data: Mapped[bytes] = mapped_column(LargeBinary)
    """In the model's own format; empty if the model can't go on from a checkpoint."""
    saved_at: Mapped[datetime] = mapped_column(UtcDateTime, insert_default=now())
