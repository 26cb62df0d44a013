"""The command that keeps servers up."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.cli.session.command_errors import CommandError
from gateway.config import GatewaySettings
from gateway.embedded.ownership import Client, Owner, acquire_or_join
from gateway.embedded.service_set import ServiceName
from gateway.embedded.services import build, run_embedded_services
from service_runtime.observability.logging import configure_logging
from service_runtime.rpc.server import serve_until_signalled
from service_runtime.rpc.stop_signal import stop_signal


def serve(name: ServiceName | None, data_dir: Path | None) -> None:
    """Serves until SIGTERM or Ctrl-C: one service, or all with the gateway at its address and commands as guests."""
    settings = settings_of(data_dir)
    configure_logging(settings.log_level, settings.log_format)
    match name:
        case None:
            with owned(settings.data_dir) as owner:
                asyncio.run(_serve_house(owner, settings))
        case "export":
            with owned(settings.data_dir) as owner:
                owner.refuse_clients()
                asyncio.run(_serve_one(name, settings))
        case _:
            asyncio.run(_serve_one(name, settings))


async def _serve_house(owner: Owner, settings: GatewaySettings) -> None:
    async with stop_signal() as stop, run_embedded_services(owner, settings.data_dir, public_address=settings.address):
        owner.accept_clients(is_persistent=True)
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


def settings_of(data_dir: Path | None) -> GatewaySettings:
    """The gateway's settings, with the data directory that was chosen, whole."""
    settings = GatewaySettings.model_validate({} if data_dir is None else {"data_dir": data_dir})
    settings.data_dir = settings.data_dir.expanduser().absolute()
    return settings


@contextmanager
def owned(data_dir: Path) -> Iterator[Owner]:
    """This process owns the data directory while the block runs. CommandError where another does."""
    with acquire_or_join(data_dir) as place:
        match place:
            case Owner():
                yield place
            case Client():
                raise CommandError(
                    f"process {place.owner_pid} uses {data_dir} already: stop it, or choose another --data-dir"
                )
