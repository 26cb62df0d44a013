"""What was done of generations that were handed back, as a SQLAlchemy model."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from storage_service.db.clock import UtcDateTime, now
from storage_service.db.declarative_base import Base
from storage_service.db.types import UuidText


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
