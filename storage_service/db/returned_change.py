"""What the UPDATE of a generation returns: the row, and on Postgres the announcement of its change.

Part of the UPDATE, the announcement needs no round trip of its own.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Text, cast, func

from storage_service.db.clock import now
from storage_service.db.models import Generation
from storage_service.events.changes import CHANNEL
from storage_service.states import GenerationStatus

_CHANGE: list[Any] = [
    cast(Generation.id, Text),
    Generation.model_name,
    (Generation.status == GenerationStatus.PENDING) & Generation.not_before.is_(None),
    func.extract("epoch", func.coalesce(Generation.not_before, Generation.lease_expires_at) - now()),
]
"""The members of `Change`, in their order, of the row as it is returned."""


def returned_columns(dialect: str, sender: ColumnElement[str]) -> list[Any]:
    """Returns the columns for RETURNING, of which the first is the row. On Postgres `sender` announces its change."""
    if dialect == "sqlite":
        return [Generation]
    return [Generation, func.pg_notify(CHANNEL, cast(func.json_build_array(sender, *_CHANGE), Text))]
