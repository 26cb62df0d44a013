"""Connects a command to a gateway and runs it: the gateway at the configured address, that of the process that owns the
data directory, or one embedded in this process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import grpc
import grpc.aio

from dgx_music import channel
from dgx_music.address import names_several
from dgx_music.client.generation_options import EXTENSIONS
from dgx_music.credentials import Credentials
from dgx_music.error_status import status_of
from dgx_music.gateway.v1 import gateway_pb2_grpc
from dgx_music.response_stream import finish_calls
from gateway.cli.session.command_errors import CONNECTION_LOST, TRY_AGAIN, CommandError, is_lost
from gateway.cli.session.command_settings import how_to_unset, load_settings
from gateway.cli.session.patient_channel import PatientChannel
from gateway.cli.signals.signal_guard import guard_signals
from gateway.config import GatewaySettings
from gateway.embedded.ownership import Client, Owner, acquire_or_join
from gateway.embedded.service_set import ALL, ServiceSet
from service_runtime.observability.logging import configure_logging
from service_runtime.observability.tracing import Tracer, tracing
from service_runtime.rpc.connection_diagnosis import explain_unknown_method, explain_unreachable

TRACER = Tracer("cli")
TRACE_PARENT_VARIABLE = "TRACEPARENT"
"""Continues the trace of a program that runs the command, by the convention of OpenTelemetry's
https://opentelemetry.io/docs/specs/otel/context/env-carriers/."""

GATEWAY = "dgx_music.gateway.v1.MusicService"
ADDRESS_HINT = "set DGX_MUSIC_GATEWAY_ADDRESS to the address of `dgx-music serve`, or "
"""Goes on with how to unset it."""
STATE_SECONDS = 0.01
"""How often a channel that connects is asked for its state."""
RUN_AGAIN = "run the command again"
"""Unless the command knows better, and has added it to the error as a note."""


@dataclass(frozen=True, slots=True)
class Session:
    """A command's connection to the gateway."""

    music: gateway_pb2_grpc.MusicServiceAsyncStub
    data_dir: Path
    is_persistent: bool
    """Whether the server keeps running after this command has ended."""
    is_embedded: bool = False
    """Whether the services run in this process, with the model folder that was given to the command."""
    address: str = ""
    """Where the gateway is, for a command that opens connections of its own."""

    def locate(self, file_path: str) -> str:
        """Returns the absolute path of a finished file, or notes that it is on the server."""
        local = self.find_local(file_path)
        return f"{file_path} (on the server)" if local is None else str(local)

    def find_local(self, file_path: str) -> Path | None:
        """Returns where a finished file is on this machine, if it is. A server that lies can't name any other file than
        an audio file in the data directory."""
        path = PurePosixPath(file_path)
        if path.is_absolute() or ".." in path.parts or path.suffix.lower() not in EXTENSIONS:
            return None
        local = self.data_dir / path
        return local if local.is_file() else None


Command = Callable[[Session], Coroutine[None, None, int]]
"""What a subcommand does with the session; returns the exit status."""


def run_command(
    command: Command,
    *,
    name: str = "dgx-music",
    services: ServiceSet,
    data_dir: Path | None,
    debug: bool,
    print_notice: Callable[[str], None],
    model_folder: Path | None = None,
) -> int:
    """Runs the command and returns its exit status. Raises what `format_error` formats, or Interrupted.

    If no server is running, `services` run in this process. If these are all services, other commands may join them;
    otherwise other commands wait, since such a command is soon done. `model_folder` is an additional model for embedded
    services. `name` is that of the command's trace.
    """
    settings = load_settings(GatewaySettings, data_dir)
    folder = settings.data_dir.expanduser().absolute()
    configure_logging("info" if debug else "error", "console")

    async def traced(session: Session) -> int:
        # Not around the services that may run in this process: what they do beside the command is not part of it.
        with TRACER.span(name, trace_parent=os.environ.get(TRACE_PARENT_VARIABLE, "")):
            return await command(session)

    with tracing(print_notice):
        if settings.gateway_address is not None:
            return asyncio.run(
                _finish(_run_remote(settings.gateway_address, settings.credentials(), traced, folder, print_notice))
            )
        with acquire_or_join(folder) as place:
            match place:
                case Owner():
                    embedded = _run_embedded(place, traced, folder, print_notice, services, model_folder)
                    return asyncio.run(_finish(embedded))
                case Client():
                    as_client = _run_as_client(place, settings.credentials(), traced, folder, print_notice)
                    return asyncio.run(_finish(as_client))


async def _finish(running: Coroutine[None, None, int]) -> int:
    try:
        return await running
    finally:
        await finish_calls()


async def _run_remote(
    address: str, credentials: Credentials, command: Command, data_dir: Path, print_notice: Callable[[str], None]
) -> int:
    async with guard_signals() as guard, channel.connect(address, credentials) as gateway_channel:
        patient_channel = PatientChannel(gateway_channel, print_notice, fails_over=names_several(address))
        music = gateway_pb2_grpc.MusicServiceStub(patient_channel)
        connected = asyncio.create_task(_wait_until_connected(gateway_channel))
        try:
            work = command(Session(music, data_dir, True, address=address))
            return await guard.run(_explain_remote(work, gateway_channel, connected, address, credentials))
        finally:
            connected.cancel()


async def _wait_until_connected(gateway_channel: grpc.aio.Channel) -> None:
    # What gRPC offers for this, channel_ready, can't be cancelled: it may call the event loop when that has ended.
    while gateway_channel.get_state() is not grpc.ChannelConnectivity.READY:  # noqa: ASYNC110  # There is no event.
        await asyncio.sleep(STATE_SECONDS)


async def _run_as_client(
    client: Client, credentials: Credentials, command: Command, data_dir: Path, print_notice: Callable[[str], None]
) -> int:
    async with guard_signals() as guard, channel.connect(client.address, credentials) as gateway_channel:
        music = gateway_pb2_grpc.MusicServiceStub(PatientChannel(gateway_channel, print_notice))
        message = f"dgx-music process {client.owner_pid}, whose services this command used, has ended"
        session = Session(music, data_dir, client.is_persistent, address=client.address)
        return await guard.run(_explain_disconnect(command(session), message))


async def _run_embedded(
    owner: Owner,
    command: Command,
    data_dir: Path,
    print_notice: Callable[[str], None],
    services: ServiceSet,
    model_folder: Path | None,
) -> int:
    from gateway.embedded.services import run_embedded_services  # A mere client does not need the servers' libraries.

    async with (
        guard_signals() as guard,
        run_embedded_services(owner, data_dir, service_set=services, model_folder=model_folder),
    ):
        if services == ALL:
            owner.accept_clients(is_persistent=False)
        try:
            async with channel.connect(owner.address) as gateway_channel:
                music = gateway_pb2_grpc.MusicServiceStub(PatientChannel(gateway_channel, print_notice))
                session = Session(music, data_dir, False, is_embedded=True, address=owner.address)
                return await guard.run(command(session))
        finally:
            if services == ALL and not owner.has_no_clients():
                print_notice(
                    "waiting for another dgx-music command that uses the services of this one; Ctrl-C ends both"
                )
                await guard.run(owner.wait_for_clients())


async def _explain_remote(
    command: Coroutine[None, None, int],
    gateway_channel: grpc.aio.Channel,
    connected: asyncio.Task[None],
    address: str,
    credentials: Credentials,
) -> int:
    """Runs the command. Raises CommandError if there is no gateway at the configured address, or none that knows it, or
    if it went away after the channel was `connected`."""
    try:
        return await command
    except grpc.aio.AioRpcError as error:
        if status_of(error) is not None:
            raise
        way_out = ADDRESS_HINT + how_to_unset("gateway_address")
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            problem = await explain_unknown_method(gateway_channel, address, GATEWAY)
            raise CommandError(f"{problem}; {way_out}", code="UNIMPLEMENTED") from error
        if not is_lost(error):
            raise
        # Idle is a channel that has lost its connection.
        if connected.done() or gateway_channel.get_state() is grpc.ChannelConnectivity.IDLE:
            message = f"lost the connection to the server at {address}; {_way_on(error)}"
            raise CommandError(message, TRY_AGAIN, reason=CONNECTION_LOST) from error
        problem = await explain_unreachable(address, credentials, way_out=way_out)
        raise CommandError(problem, TRY_AGAIN) from error


async def _explain_disconnect(command: Coroutine[None, None, int], message: str) -> int:
    """Runs the command. Raises CommandError with this message, and how to go on, if the server cannot be reached."""
    try:
        return await command
    except grpc.aio.AioRpcError as error:
        if is_lost(error):
            raise CommandError(f"{message}; {_way_on(error)}", TRY_AGAIN, reason=CONNECTION_LOST) from error
        raise


def _way_on(error: grpc.aio.AioRpcError) -> str:
    return "; ".join(getattr(error, "__notes__", [RUN_AGAIN]))
