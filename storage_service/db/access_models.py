"""Tokens, and how much each client has used, as SQLAlchemy models."""

from __future__ import annotations

from datetime import date, datetime

from sqlalchemy import Date, Double, Index, Integer, LargeBinary, SmallInteger, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from service_runtime.access.caller import Scope
from storage_service.db.clock import UtcDateTime, now
from storage_service.db.declarative_base import Base


class Token(Base):
    """A token, of whose secret only the hash is stored. It stays here after it has expired or was revoked."""

    __tablename__ = "tokens"
    __table_args__ = (Index(None, "created_at"), Index(None, "name"))

    id: Mapped[str] = mapped_column(Text, primary_key=True)
    """8 lower-case letters and digits, which the secret contains."""
    name: Mapped[str] = mapped_column(Text)
    """The name of the client. Only one valid token has it."""
    scope: Mapped[int] = mapped_column(SmallInteger)
    """A `Scope`."""
    secret_sha256: Mapped[bytes] = mapped_column(LargeBinary)
    """SHA-256 of the whole secret. The secret is random, so no salt or slow hash is needed."""
    calls_per_minute: Mapped[int] = mapped_column(Integer)
    """0 stands for no limit, as with the two below."""
    max_queued: Mapped[int] = mapped_column(Integer)
    minutes_per_day: Mapped[float] = mapped_column(Double)
    weight: Mapped[float] = mapped_column(Double, default=1.0, server_default=text("1"))
    """The client's share of what is generated, in relation to others."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, insert_default=now())
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    @property
    def granted_scope(self) -> Scope:
        """What its bearer may do."""
        return Scope(self.scope)


class ClientUsage(Base):
    """What a client has created on one UTC day. It is not reduced when a generation is cancelled or deleted."""

    __tablename__ = "client_usage"

    client: Mapped[str] = mapped_column(Text, primary_key=True)
    day: Mapped[date] = mapped_column(Date, primary_key=True)
    audio_seconds: Mapped[float] = mapped_column(Double)
    """Of all generations, counted when they enter the queue: at creation and at each retry by the user."""
