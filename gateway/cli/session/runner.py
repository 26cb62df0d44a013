"""A command's connection to the gateway: the one at the address configured, that of the process which owns the data
directory, or one in this process. And what Ctrl-C does to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio

from dgx_music.client import connect
from dgx_music.gateway.v1 import gateway_pb2_grpc
from dgx_music.status import status_of
from gateway.cli.session.command_errors import CommandError
from gateway.cli.session.signals import interrupts
from gateway.config import GatewaySettings
from gateway.embedded.ownership import Client, Owner, acquire_or_join
from gateway.embedded.service_set import ALL, ServiceSet
from service_runtime.observability.logging import configure_logging

CALL_SECONDS = 30.0
"""Longest that a call with one answer may take."""
STREAM_SECONDS = 24 * 3600.0
"""Longest that a stream may take."""


@dataclass(frozen=True, slots=True)
class Session:
    """What a command works with."""

    music: gateway_pb2_grpc.MusicServiceAsyncStub
    data_dir: Path
    lasting: bool
    """Whether the server goes on when this command has ended."""
    notice: Callable[[str], None]
    """Tells the person something, on standard error."""
    is_own: bool = False
    """Whether the services run in this process, with the model's folder that the command was given."""

    def locate(self, file_path: str) -> str:
        """Where a finished file is: its whole path, if it is on this machine."""
        here = self.data_dir / file_path
        return str(here) if here.is_file() else f"{file_path} (on the server)"


Job = Callable[[Session], Coroutine[None, None, int]]
"""What a command does; gives its exit status."""


def run(
    job: Job,
    *,
    needs: ServiceSet,
    data_dir: Path | None,
    debug: bool,
    notice: Callable[[str], None],
    model_folder: Path | None = None,
) -> int:
    """Runs the job and gives its exit status. Raises what `failures.explain` explains, or Interrupted.

    Where no server is up, those services that it `needs` run in this process. If that is all of them, other commands
    may join them; if not, they wait: such a job is soon done. `model_folder` is a model for services in this process.
    """
    settings = GatewaySettings.model_validate({} if data_dir is None else {"data_dir": data_dir})
    folder = settings.data_dir.expanduser().absolute()
    configure_logging("info" if debug else "error", "console")
    if settings.gateway_address is not None:
        return asyncio.run(_run_at(settings.gateway_address, job, folder, notice))
    with acquire_or_join(folder) as place:
        match place:
            case Owner():
                return asyncio.run(_run_own(place, job, folder, notice, needs, model_folder))
            case Client():
                return asyncio.run(_run_joined(place, job, folder, notice))


async def _run_at(address: str, job: Job, data_dir: Path, notice: Callable[[str], None]) -> int:
    async with interrupts() as interrupt, connect(address) as music:
        silent = f"nothing answers at {address}: start `dgx-music serve` there, or unset DGX_MUSIC_GATEWAY_ADDRESS"
        return await interrupt.run(_explained(job(Session(music, data_dir, True, notice)), silent))


async def _run_joined(guest: Client, job: Job, data_dir: Path, notice: Callable[[str], None]) -> int:
    async with interrupts() as interrupt, connect(guest.address) as music:
        gone = f"the dgx-music process {guest.owner_pid}, whose services this command used, has ended: run it again"
        return await interrupt.run(_explained(job(Session(music, data_dir, guest.is_persistent, notice)), gone))


async def _run_own(
    owner: Owner,
    job: Job,
    data_dir: Path,
    notice: Callable[[str], None],
    needs: ServiceSet,
    model_folder: Path | None,
) -> int:
    from gateway.embedded.services import run_embedded_services  # A mere client does without what servers need.

    async with (
        interrupts() as interrupt,
        run_embedded_services(owner, data_dir, service_set=needs, model_folder=model_folder),
    ):
        if needs == ALL:
            owner.accept_clients(is_persistent=False)
        try:
            async with connect(owner.address) as music:
                return await interrupt.run(job(Session(music, data_dir, False, notice, is_own=True)))
        finally:
            if needs == ALL and not owner.has_no_clients():
                notice("another dgx-music command uses this one's services: waiting for it (Ctrl-C ends both)")
                await interrupt.run(owner.wait_for_clients())


async def _explained(job: Coroutine[None, None, int], if_gone: str) -> int:
    try:
        return await job
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNAVAILABLE and status_of(error) is None:
            raise CommandError(if_gone) from error
        raise
