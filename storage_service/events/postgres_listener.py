"""What other processes commit to the same Postgres, told to those who wait in this one."""

from __future__ import annotations

import asyncio
from typing import Any

from sqlalchemy import Engine

from service_runtime.observability.logging import get_logger
from storage_service.events.changes import CHANNEL, read_payload
from storage_service.events.notifier import Notifier

log = get_logger(__name__)

APPLICATION_NAME = "dgx-music listener"
"""How an administrator finds the connection in pg_stat_activity."""

_RECONNECT_SECONDS = 0.5
"""Between two attempts to listen again."""

_PATIENCE = {"connect_timeout": 5, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
"""In seconds. A listener only ever reads: a server gone without a word would be waited for, for good."""


async def listen(engine: Engine, own: str, notifier: Notifier) -> None:
    """Hands every change that `own` did not announce itself to the notifier; until it is cancelled.

    One connection, beside the engine's. Where it is lost, all who wait are woken once it is there again: what was
    announced meanwhile is not announced twice.
    """
    import psycopg  # Only here and in SQLAlchemy: who uses SQLite need not have it.

    _, to_database = engine.dialect.create_connect_args(engine.url)
    arguments = {**_PATIENCE, **to_database, "autocommit": True, "application_name": APPLICATION_NAME}
    lost = False
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(**arguments) as connection:
                await connection.execute(f"LISTEN {CHANNEL}")
                if lost:
                    log.info("listening to other servers again")
                lost = False
                notifier.wake_all()
                await _hear(connection, own, notifier)
        except psycopg.Error as error:
            if not lost:  # Once, however long it lasts.
                log.warning("not listening to other servers", error=str(error).partition("\n")[0])
            lost = True
        await asyncio.sleep(_RECONNECT_SECONDS)


async def _hear(connection: Any, own: str, notifier: Notifier) -> None:
    async for announced in connection.notifies():
        try:
            sender, change = read_payload(announced.payload)
        except ValueError:  # Another version's words; something has changed.
            notifier.wake_all()
            continue
        if sender != own:
            notifier.publish([change])
