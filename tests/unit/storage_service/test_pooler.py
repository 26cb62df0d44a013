"""Poolers between a server and Postgres. A real PgBouncer is in `tests/faults/test_65_no_free_connection.py`."""

from __future__ import annotations

import pytest

from dgx_music.errors import FailedPrecondition
from storage_service import pooler
from storage_service.db.database import Database


def test_direct_connection_keeps_its_session(database: Database) -> None:
    pooler.require_sessions(database)


@pytest.mark.parametrize("url", ["postgres"], indirect=True)
@pytest.mark.usefixtures("url")
def test_session_of_one_connection_that_another_gets_is_refused(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pooler, "_announced_process_id", lambda _: 0)  # The client was given another id: a pooler.
    pooler.require_sessions(database)
    monkeypatch.setattr(pooler, "_read_process_id", lambda _: 1)
    with pytest.raises(FailedPrecondition, match="pool_mode=session") as raised:
        pooler.require_sessions(database)
    assert raised.value.reason == "DATABASE_POOLER"
