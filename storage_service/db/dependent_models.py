"""What belongs to a generation besides its row, as SQLAlchemy models: its sources, what was done of it, and how it
was ranked."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, LargeBinary, SmallInteger, Text
from sqlalchemy.orm import Mapped, mapped_column, relationship

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


class ComparisonEntry(Base):
    """One of the generations of a comparison. It is deleted with the generation.

    If fewer than two are left, a trigger (migration 0012) deletes the comparison.
    """

    __tablename__ = "comparison_entries"
    __table_args__ = (Index(None, "generation_id"),)

    comparison_id: Mapped[str] = mapped_column(
        UuidText,
        ForeignKey("comparisons.id", name="fk_comparison_entries_comparison_id", ondelete="CASCADE"),
        primary_key=True,
    )
    generation_id: Mapped[str] = mapped_column(
        UuidText,
        ForeignKey("generations.id", name="fk_comparison_entries_generation_id", ondelete="CASCADE"),
        primary_key=True,
    )
    place: Mapped[int] = mapped_column(SmallInteger)
    """1 for the best. A place is missing if its generation was deleted."""


class Comparison(Base):
    """The order in which a listener ranked generations."""

    __tablename__ = "comparisons"
    __table_args__ = (Index(None, "created_at"),)

    id: Mapped[str] = mapped_column(UuidText, primary_key=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, insert_default=now())
    blind: Mapped[bool]
    """Whether the listener did not know which generation was which."""
    request_id: Mapped[str | None] = mapped_column(UuidText, unique=True)
    request_fingerprint: Mapped[str | None] = mapped_column(Text)
    entries: Mapped[list[ComparisonEntry]] = relationship(
        order_by=ComparisonEntry.place, lazy="raise", passive_deletes=True
    )
    """Those that exist, best first. Loaded only by a statement that asks for them."""
