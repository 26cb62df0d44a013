"""What a transaction changes, noted for those who wait for it.

On Postgres it is announced as well, to every server that listens (`broadcast.py`): in the transaction itself, so that
nobody hears of what was rolled back and everybody of what was committed, even if this process is gone by then.
"""

from __future__ import annotations

import json
from dataclasses import astuple, dataclass

from sqlalchemy import event
from sqlalchemy.orm import Session

CHANNEL = "dgx_music"
"""What Postgres's LISTEN and NOTIFY call it; each database has its own."""


@dataclass(frozen=True)
class Change:
    """One committed change of a generation."""

    generation_id: str
    model_name: str
    claimable: bool
    """It waits for a worker now."""
    due_seconds: float | None = None
    """In how many seconds a sweep has something to do for it: its lease ends, or its wait for another attempt."""


_SENDER = "sender"
_CHANGES = "changes"
_UNANNOUNCED = "unannounced"

# One round trip, however many changes.
_ANNOUNCE = f"SELECT pg_notify('{CHANNEL}', payload) FROM unnest(CAST(%s AS TEXT[])) AS payload"


def send_as(session: Session, sender: str) -> None:
    """What the session announces is `sender`'s, who need not be told of it."""
    session.info[_SENDER] = sender


def announcement(session: Session, change: Change) -> str:
    """What NOTIFY is to say of a change of this session's."""
    return payload(session.info.get(_SENDER, ""), change)


def note(session: Session, change: Change, *, is_announced: bool = False) -> None:
    """Notes a change for `changes_of`, which is asked after the commit, and for who listens, unless the statement that
    made it has announced it."""
    session.info.setdefault(_CHANGES, []).append(change)
    if is_announced or session.get_bind().dialect.name != "postgresql":
        return
    unannounced = session.info.setdefault(_UNANNOUNCED, [])
    if not unannounced:
        event.listen(session, "before_commit", _announce)
    unannounced.append(announcement(session, change))


def changes_of(session: Session) -> list[Change]:
    """What was noted in the session."""
    changes: list[Change] = session.info.get(_CHANGES, [])
    return changes


def payload(sender: str, change: Change) -> str:
    """A change as it is announced: at most 1,500 bytes, of the 8,000 that NOTIFY takes."""
    return json.dumps([sender, *astuple(change)], ensure_ascii=False, separators=(",", ":"))


def read_payload(announced: str) -> tuple[str, Change]:
    """The sender and the change. ValueError where it is not one of ours."""
    sender, generation_id, model_name, claimable, due_seconds = json.loads(announced)
    return sender, Change(generation_id, model_name, claimable, due_seconds)


def _announce(session: Session) -> None:
    if unannounced := session.info.pop(_UNANNOUNCED, []):
        session.connection().exec_driver_sql(_ANNOUNCE, (unannounced,))
