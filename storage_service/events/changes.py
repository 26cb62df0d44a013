"""Records what a transaction changes, for the calls that wait for it.

On Postgres every change is also announced to the other servers, which `postgres_listener` receives. NOTIFY is part of
the transaction: what is rolled back is never announced, and what is committed always is, even if this process dies.
"""

from __future__ import annotations

import json
from dataclasses import astuple, dataclass

from sqlalchemy import event
from sqlalchemy.orm import Session

CHANNEL = "dgx_music"
"""The channel of Postgres's LISTEN and NOTIFY. Each database has its own."""


@dataclass(frozen=True)
class Change:
    """One committed change of a generation."""

    generation_id: str
    model_name: str
    is_claimable: bool
    """Whether a worker can claim the generation now."""
    due_seconds: float | None = None
    """In how many seconds the next sweep is due for it, because its lease or its retry delay ends."""


_SENDER = "sender"
_CHANGES = "changes"
_UNANNOUNCED = "unannounced"

# One round trip, however many changes there are.
_ANNOUNCE = f"SELECT pg_notify('{CHANNEL}', payload) FROM unnest(CAST(%s AS TEXT[])) AS payload"  # noqa: S608


def set_sender(session: Session, sender: str) -> None:
    """Marks the session's announcements as sent by `sender`, which ignores them when it receives them itself."""
    session.info[_SENDER] = sender


def sender_of(session: Session) -> str:
    """Returns who announces the session's changes."""
    sender: str = session.info.get(_SENDER, "")
    return sender


def build_announcement(session: Session, change: Change) -> str:
    """Returns the payload that announces the session's change with NOTIFY."""
    return encode_payload(sender_of(session), change)


def record_change(session: Session, change: Change, *, is_announced: bool = False) -> None:
    """Records a change for `get_recorded_changes`, and announces it at commit on Postgres.

    `is_announced` says that the statement which made the change has already announced it.
    """
    session.info.setdefault(_CHANGES, []).append(change)
    if is_announced or session.get_bind().dialect.name != "postgresql":
        return
    unannounced = session.info.setdefault(_UNANNOUNCED, [])
    if not unannounced:
        event.listen(session, "before_commit", _announce)
    unannounced.append(build_announcement(session, change))


def get_recorded_changes(session: Session) -> list[Change]:
    """Returns the changes recorded in the session. They are valid once it has committed."""
    changes: list[Change] = session.info.get(_CHANGES, [])
    return changes


def encode_payload(sender: str, change: Change) -> str:
    """Encodes a change for NOTIFY: at most 1,500 bytes, of the 8,000 that Postgres accepts."""
    return json.dumps([sender, *astuple(change)], ensure_ascii=False, separators=(",", ":"))


def decode_payload(payload: str) -> tuple[str, Change]:
    """Returns the sender and the change. Raises ValueError if another version of DGX Music encoded it differently."""
    sender, generation_id, model_name, is_claimable, due_seconds = json.loads(payload)
    return sender, Change(generation_id, model_name, is_claimable, due_seconds)


def _announce(session: Session) -> None:
    if unannounced := session.info.pop(_UNANNOUNCED, []):
        session.connection().exec_driver_sql(_ANNOUNCE, (unannounced,))
