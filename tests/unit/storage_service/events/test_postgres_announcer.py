"""What a server announces, and what it does when it can't."""

from __future__ import annotations

from typing import Any

import pytest

from storage_service.db.database import Database
from storage_service.events import postgres_announcer
from storage_service.events.changes import Change, Signal, decode_payload
from storage_service.events.postgres_announcer import PostgresAnnouncer


class Connection:
    """Keeps what was announced in each round trip, and fails if told to."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.error: Exception | None = None

    async def execute(self, _: str, parameters: tuple[list[str]]) -> None:
        if self.error is not None:
            raise self.error
        self.batches.append([decode_payload(payload)[1] for payload in parameters[0]])


def change(number: int, **values: Any) -> Change:
    return Change(f"{number:032}", "sketch", **{"is_claimable": False, **values})


@pytest.fixture
def announcer(database: Database) -> PostgresAnnouncer:
    return PostgresAnnouncer(database.engine, "me")


pytestmark = pytest.mark.parametrize("url", ["sqlite"], indirect=True)


async def test_changes_since_the_last_time_are_one_round_trip(announcer: PostgresAnnouncer) -> None:
    connection = Connection()
    renewed = [change(1, due_seconds=float(n)) for n in range(3)]
    announcer.add([change(1, is_claimable=True), change(2)])
    announcer.add(renewed)
    await announcer._announce(connection)
    await announcer._announce(connection)
    # That it could be claimed is not replaced by what came later.
    assert connection.batches == [[change(1, is_claimable=True), change(2), renewed[-1], Signal.ALIVE], [Signal.ALIVE]]


async def test_what_could_not_be_announced_stays(announcer: PostgresAnnouncer) -> None:
    connection = Connection()
    connection.error = ConnectionError()
    announcer.add([change(1)])
    with pytest.raises(ConnectionError):
        await announcer._announce(connection)
    connection.error = None
    await announcer._announce(connection)
    assert connection.batches == [[change(1), Signal.ALIVE]]


async def test_more_than_can_wait_is_announced_as_lost(
    announcer: PostgresAnnouncer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_announcer, "_MAX_WAITING", 3)
    connection = Connection()
    announcer.add([change(number) for number in range(4)])
    await announcer._announce(connection)
    await announcer._announce(connection)
    assert connection.batches == [[Signal.LOST, Signal.ALIVE], [Signal.ALIVE]]
