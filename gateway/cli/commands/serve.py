"""`dgx-music serve`: runs one service, or all of them, until it is stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from gateway.cli.session.command_errors import BAD_INPUT, CommandError
from gateway.cli.session.command_settings import load_settings
from gateway.config import GatewaySettings
from gateway.embedded.ownership import Client, Owner, acquire_or_join
from gateway.embedded.service_set import ServiceName
from gateway.embedded.services import build, run_embedded_services
from service_runtime.observability.logging import configure_logging
from service_runtime.observability.tracing import tracing
from service_runtime.rpc.server import serve_until_signalled
from service_runtime.rpc.stop_signal import stop_signal


def serve(name: ServiceName | None, data_dir: Path | None, devices: str | None = None) -> None:
    """Runs one service, or all of them, until SIGTERM or Ctrl-C. Commands on the same data directory then use them.

    `devices` takes precedence over DGX_MUSIC_DEVICES.
    """
    if devices is not None and name not in (None, "generation"):
        raise CommandError(f"--devices: {name} uses none; only generation and all services together do", BAD_INPUT)
    overrides = {} if devices is None else {"devices": devices}
    settings = resolve_settings(data_dir)
    configure_logging(settings.log_level, settings.log_format)
    with tracing():
        _serve(name, settings, overrides)


def _serve(name: ServiceName | None, settings: GatewaySettings, overrides: Mapping[str, object]) -> None:
    match name:
        case None:
            with acquire_ownership(settings.data_dir) as owner:
                asyncio.run(_serve_all(owner, settings, overrides))
        case "export":
            with acquire_ownership(settings.data_dir) as owner:
                owner.refuse_clients()
                asyncio.run(_serve_one(name, settings, overrides))
        case _:
            asyncio.run(_serve_one(name, settings, overrides))


async def _serve_all(owner: Owner, settings: GatewaySettings, overrides: Mapping[str, object]) -> None:
    services = run_embedded_services(owner, settings.data_dir, public_address=settings.address, overrides=overrides)
    async with stop_signal() as stop, services:
        owner.accept_clients(is_persistent=True)
        await stop.wait()


async def _serve_one(name: ServiceName, settings: GatewaySettings, overrides: Mapping[str, object]) -> None:
    addresses = {
        "storage": settings.storage_address,
        "export": settings.export_address,
        "generation": settings.generation_address,
        "gateway": settings.address,
    }
    service = build(name, {"data_dir": settings.data_dir, **overrides})
    await serve_until_signalled([service], settings.listen or addresses[name], settings)


def resolve_settings(data_dir: Path | None) -> GatewaySettings:
    """Returns the gateway's settings, with an absolute data directory: the one given, or the configured one."""
    settings = load_settings(GatewaySettings, data_dir)
    settings.data_dir = settings.data_dir.expanduser().absolute()
    return settings


@contextmanager
def acquire_ownership(data_dir: Path) -> Iterator[Owner]:
    """Owns the data directory while the block runs. Raises CommandError if another process owns it."""
    with acquire_or_join(data_dir) as place:
        match place:
            case Owner():
                yield place
            case Client():
                raise CommandError(
                    f"{data_dir} is in use by process {place.owner_pid}; stop it, or choose another --data-dir"
                )
