"""The commands that keep servers up, and those that look after the database."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.config import GatewaySettings
from gateway.failures import CommandError
from gateway.house import build, house
from gateway.needs import ServiceName
from gateway.ownership import Guest, Owner, enter
from service_runtime.server import serve_until_signalled, stop_signal
from service_runtime.telemetry import configure_logging
from storage_service.config import StorageSettings


def serve(name: ServiceName | None, data_dir: Path | None) -> None:
    """Serves until SIGTERM or Ctrl-C: one service, or all with the gateway at its address and commands as guests."""
    settings = _settings(data_dir)
    configure_logging(settings.log_level, settings.log_format)
    match name:
        case None:
            with _owned(settings.data_dir) as owner:
                asyncio.run(_serve_house(owner, settings))
        case "export":
            with _owned(settings.data_dir) as owner:
                owner.turn_away()
                asyncio.run(_serve_one(name, settings))
        case _:
            asyncio.run(_serve_one(name, settings))


async def _serve_house(owner: Owner, settings: GatewaySettings) -> None:
    async with stop_signal() as stop, house(owner, settings.data_dir, face=settings.address):
        owner.let_in(lasting=True)
        await stop.wait()


async def _serve_one(name: ServiceName, settings: GatewaySettings) -> None:
    addresses = {
        "storage": settings.storage_address,
        "export": settings.export_address,
        "generation": settings.generation_address,
        "gateway": settings.address,
    }
    service = build(name, {"data_dir": settings.data_dir})
    await serve_until_signalled([service], settings.listen or addresses[name], settings)


def init_database(data_dir: Path | None) -> str:
    """Creates the database if there is none; says what is there now."""
    from storage_service import schema

    with _database(data_dir) as database:
        url, shown = database.resolved_database_url(), database.shown_database_url()
        found = schema.current(url)
        if found is not None:
            return f"there is a database already, at revision {found}: {shown}"
        schema.upgrade(url)
        return f"created the database, at revision {schema.current(url)}: {shown}"


def migrate_database(data_dir: Path | None) -> str:
    """Brings the database to this version's schema; says what is there now."""
    from storage_service import schema

    with _database(data_dir) as database:
        url = database.resolved_database_url()
        before = schema.current(url)
        schema.upgrade(url)
        after, shown = schema.current(url), database.shown_database_url()
        return f"the database is at revision {after}, from {before or 'none'}: {shown}"


def reset_database(data_dir: Path | None) -> str:
    """Deletes all rows; says what is there now."""
    from storage_service import schema

    with _database(data_dir) as database:
        url = database.resolved_database_url()
        schema.reset(url)
        return f"the database is empty, at revision {schema.current(url)}: {database.shown_database_url()}"


def database_shown(data_dir: Path | None) -> str:
    """Which database the commands above work on, without its password."""
    return _storage_settings(data_dir).shown_database_url()


@contextmanager
def _database(data_dir: Path | None) -> Iterator[StorageSettings]:
    """Where the database is, while no server of this data directory is up."""
    configure_logging("warning", "console")
    settings = _storage_settings(data_dir)
    with _owned(settings.data_dir):
        yield settings


def _storage_settings(data_dir: Path | None) -> StorageSettings:
    return StorageSettings(data_dir=_settings(data_dir).data_dir)


def _settings(data_dir: Path | None) -> GatewaySettings:
    settings = GatewaySettings.model_validate({} if data_dir is None else {"data_dir": data_dir})
    settings.data_dir = settings.data_dir.expanduser().absolute()
    return settings


@contextmanager
def _owned(data_dir: Path) -> Iterator[Owner]:
    with enter(data_dir) as place:
        match place:
            case Owner():
                yield place
            case Guest():
                raise CommandError(
                    f"process {place.owner_pid} uses {data_dir} already: stop it, or choose another --data-dir"
                )
