"""The connections of LISTEN and NOTIFY, which a server has beside those of its transactions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine

from storage_service.database_url import connection_options

if TYPE_CHECKING:
    import psycopg

RECONNECT_DELAY_SECONDS = 0.5

_TIMEOUT_SECONDS = 5.0


async def connect(engine: Engine, application_name: str) -> psycopg.AsyncConnection[Any]:
    """Opens a connection to the engine's database. Raises psycopg.Error if there is none."""
    import psycopg  # Imported here because it need not be installed for SQLite.

    _, arguments = engine.dialect.create_connect_args(engine.url)
    options = {**connection_options(engine.url, _TIMEOUT_SECONDS), **arguments}
    return await psycopg.AsyncConnection.connect(**{**options, "application_name": application_name}, autocommit=True)
