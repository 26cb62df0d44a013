"""Receives the changes that other processes commit to the same Postgres database."""

from __future__ import annotations

import asyncio
from typing import Any

from sqlalchemy import Engine

from service_runtime.observability.logging import get_logger
from storage_service.events.changes import CHANNEL, decode_payload
from storage_service.events.notifier import Notifier

log = get_logger(__name__)

APPLICATION_NAME = "dgx-music listener"
"""The name of the connection in pg_stat_activity."""

_RECONNECT_DELAY_SECONDS = 0.5

_CONNECTION_OPTIONS = {"connect_timeout": 5, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
"""In seconds. A listener only reads, so without keepalives it would never notice that a server has disappeared."""


async def listen(engine: Engine, own_sender: str, notifier: Notifier) -> None:
    """Publishes to the notifier every change that `own_sender` did not announce, until it is cancelled.

    Uses one connection beside the engine's. After a lost connection is restored, all waiting calls are woken, because
    what was announced meanwhile is not announced again.
    """
    import psycopg  # Imported here because it need not be installed for SQLite.

    _, connect_arguments = engine.dialect.create_connect_args(engine.url)
    arguments = {
        **_CONNECTION_OPTIONS,
        **connect_arguments,
        "autocommit": True,
        "application_name": APPLICATION_NAME,
    }
    is_lost = False
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(**arguments) as connection:
                await connection.execute(f"LISTEN {CHANNEL}")
                if is_lost:
                    log.info("listening_resumed")
                is_lost = False
                notifier.wake_all()
                await _listen_once(connection, own_sender, notifier)
        except psycopg.Error as error:
            if not is_lost:  # Logged once, however long it lasts.
                log.warning("listening_failed", error=str(error).partition("\n")[0])
            is_lost = True
        await asyncio.sleep(_RECONNECT_DELAY_SECONDS)


async def _listen_once(connection: Any, own_sender: str, notifier: Notifier) -> None:
    """Listens until the connection is lost."""
    async for notification in connection.notifies():
        try:
            sender, change = decode_payload(notification.payload)
        except ValueError:  # From another version. Something has changed, but this version can't tell what.
            notifier.wake_all()
            continue
        if sender != own_sender:
            notifier.publish([change])
