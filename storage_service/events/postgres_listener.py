"""Receives the changes that other processes commit to the same Postgres database."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine

from service_runtime.observability.logging import get_logger
from storage_service.events.changes import CHANNEL, Signal, decode_payload
from storage_service.events.notification_connection import RECONNECT_DELAY_SECONDS, connect
from storage_service.events.notifier import Notifier

if TYPE_CHECKING:
    import psycopg

log = get_logger(__name__)

APPLICATION_NAME = "dgx-music listener"
"""The name of the connection in pg_stat_activity."""

SILENCE_SECONDS = 6.0
"""After this time without a sign of life, a server is taken for dead. If it is the own one, this connection is."""


async def listen(engine: Engine, own_sender: str, notifier: Notifier) -> None:
    """Publishes to the notifier every change that `own_sender` did not announce, until it is cancelled.

    Uses one connection beside the engine's. All waiting calls are woken when changes may have been missed: after a lost
    connection is restored, because what was announced meanwhile is not announced again; when another server has died,
    perhaps before it announced what it had committed; and as long as not even the own announcements arrive.
    """
    import psycopg  # Imported here because it need not be installed for SQLite.

    is_lost = False
    while True:
        try:
            async with await connect(engine, APPLICATION_NAME) as connection:
                await connection.execute(f"LISTEN {CHANNEL}")
                if is_lost:
                    log.info("listening_resumed")
                is_lost = False
                notifier.wake_all()
                problem = await _Listener(connection, own_sender, notifier).run()
        except psycopg.Error as error:
            problem = str(error).partition("\n")[0]
        if not is_lost:  # Logged once, however long it lasts.
            log.warning("listening_failed", error=problem)
        is_lost = True
        await asyncio.sleep(RECONNECT_DELAY_SECONDS)


class _Listener:
    def __init__(self, connection: psycopg.AsyncConnection[Any], own_sender: str, notifier: Notifier) -> None:
        self._connection, self._own_sender, self._notifier = connection, own_sender, notifier
        self._heard_at = {own_sender: time.monotonic()}
        """When each server was heard last."""

    async def run(self) -> str:
        """Publishes changes until the connection delivers none. Returns what is wrong with it."""
        while True:
            async for notification in self._connection.notifies(timeout=SILENCE_SECONDS / 3):
                self._receive(notification.payload)
            now = time.monotonic()
            silent = [sender for sender, heard_at in self._heard_at.items() if now - heard_at > SILENCE_SECONDS]
            if self._own_sender in silent:
                return "no notification arrives, not even this server's own"
            for sender in silent:
                log.warning("server_vanished", sender=sender)
                del self._heard_at[sender]
                self._notifier.wake_all()

    def _receive(self, payload: str) -> None:
        try:
            sender, received = decode_payload(payload)
        except ValueError:  # From another version. Something has changed, but this version can't tell what.
            self._notifier.wake_all()
            return
        if sender:  # Programs that use the library, and commands, announce what they change, but not themselves.
            self._heard_at[sender] = time.monotonic()
        if received is Signal.STOPPED:
            self._heard_at.pop(sender, None)
        elif received is Signal.LOST:
            self._notifier.wake_all()
        elif not isinstance(received, Signal) and sender != self._own_sender:
            self._notifier.publish([received])
