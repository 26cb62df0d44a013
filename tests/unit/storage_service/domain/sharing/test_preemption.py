"""What a renewal costs while a more important generation waits. tests/stateful has who makes room for whom."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import event

from storage_service.db.database import Database
from storage_service.domain import creation, leases
from storage_service.domain.creation import NewGeneration
from storage_service.domain.sharing.preemption import HEADS_SECONDS, Preemption

MODELS = ["sketch"]
RUNNING = 6


def test_running_generations_are_read_once_a_second(database: Database, new: Callable[..., NewGeneration]) -> None:
    clock = [0.0]
    preemption = Preemption(1e-6, clock=lambda: clock[0])
    with database.write() as session:
        creation.create_all(session, [new()] * RUNNING)
        running = [leases.claim(session, "w", MODELS, 60.0) for _ in range(RUNNING)]
        preemptor = creation.create(session, new(priority=1))

    reads: list[str] = []

    def catch(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "JOIN checkpoints" in statement:
            reads.append(statement)

    event.listen(database.engine, "before_cursor_execute", catch)
    for clock[0] in (0.0, HEADS_SECONDS):
        reads.clear()
        with database.write() as session:
            found = [preemption.find(session, row, MODELS) for row in running if row is not None]
        assert found == ["", "", "", "", "", preemptor.id], "only the last claimed makes room"
        assert len(reads) == 2, "one for all, and one of that which is to make room"
