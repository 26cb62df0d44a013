"""Records what a transaction changes, for the calls that wait for it.

On Postgres every change is also announced to the other servers, which `postgres_listener` receives. A server announces
what its transactions have committed afterwards, see `postgres_announcer`. Programs that use the library, and commands,
announce it by a NOTIFY that is part of the transaction.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from enum import StrEnum

from sqlalchemy import event
from sqlalchemy.orm import Session

CHANNEL = "dgx_music"
"""The channel of Postgres's LISTEN and NOTIFY. Each database has its own."""

ANNOUNCE = f"SELECT pg_notify('{CHANNEL}', payload) FROM unnest(CAST(%s AS TEXT[])) AS payload"  # noqa: S608
"""One round trip, however many payloads there are."""


@dataclass(frozen=True)
class Change:
    """One committed change of a generation."""

    generation_id: str
    model_name: str
    is_claimable: bool
    """Whether a worker can claim the generation now."""
    due_seconds: float | None = None
    """In how many seconds the next sweep is due for it, because its lease or its retry delay ends."""


class Signal(StrEnum):
    """What a server says about its own announcements."""

    ALIVE = "alive"
    """It has announced all that it had to, and says so again soon."""
    STOPPED = "stopped"
    """Likewise, but there will be no more."""
    LOST = "lost"
    """It could not announce some changes, and no longer knows which."""


_CHANGES = "changes"
_IS_ANNOUNCED_LATER = "is_announced_later"
_UNANNOUNCED = "unannounced"


def announce_later(session: Session) -> None:
    """Marks the session's changes as announced by the caller once they are committed."""
    session.info[_IS_ANNOUNCED_LATER] = True


def record_change(session: Session, change: Change) -> None:
    """Records a change for `get_recorded_changes`, and announces it at commit on Postgres."""
    session.info.setdefault(_CHANGES, []).append(change)
    if session.info.get(_IS_ANNOUNCED_LATER) or session.get_bind().dialect.name != "postgresql":
        return
    unannounced = session.info.setdefault(_UNANNOUNCED, [])
    if not unannounced:
        event.listen(session, "before_commit", _announce)
    unannounced.append(change)


def get_recorded_changes(session: Session) -> list[Change]:
    """Returns the changes recorded in the session. They are valid once it has committed."""
    changes: list[Change] = session.info.get(_CHANGES, [])
    return changes


def encode_changes(sender: str, changes: Iterable[Change]) -> list[str]:
    """Encodes changes for NOTIFY: at most 1,500 bytes each, of the 8,000 that Postgres accepts."""
    return [_encode([sender, *astuple(change)]) for change in changes]


def encode_signal(sender: str, signal: Signal) -> str:
    """Encodes a signal for NOTIFY."""
    return _encode([sender, signal])


def decode_payload(payload: str) -> tuple[str, Change | Signal]:
    """Returns the sender and the change. Raises ValueError if another version of DGX Music encoded it differently."""
    sender, *members = json.loads(payload)
    if len(members) == 1:
        return sender, Signal(members[0])
    generation_id, model_name, is_claimable, due_seconds = members
    return sender, Change(generation_id, model_name, is_claimable, due_seconds)


def _encode(members: list[object]) -> str:
    return json.dumps(members, ensure_ascii=False, separators=(",", ":"))


def _announce(session: Session) -> None:
    if unannounced := session.info.pop(_UNANNOUNCED, []):
        session.connection().exec_driver_sql(ANNOUNCE, (encode_changes("", unannounced),))
