"""How a listener ranked generations, as SQLAlchemy models."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, SmallInteger, Text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from storage_service.db.clock import UtcDateTime, now
from storage_service.db.declarative_base import Base
from storage_service.db.types import UuidText


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
