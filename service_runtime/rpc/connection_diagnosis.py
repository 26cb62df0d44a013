"""Finds out why a server can't be reached, by a connection of its own: gRPC's reports are about sockets and frames."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from contextlib import suppress
from typing import Any

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dgx_music.address import LIST_PREFIXES, TcpAddress, UnixAddress, parse_address
from dgx_music.credentials import NO_CREDENTIALS, SYSTEM_CA, Credentials

TIMEOUT_SECONDS = 2.0
"""How long another program may take to accept the connection, and then to say something."""
HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""The preface with which a client begins, and an empty SETTINGS frame (RFC 9113, sections 3.4 and 6.5)."""
SETTINGS_FRAME = 4
"""The type of the frame that a server sends first, in the fourth byte."""

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def explain_unreachable(address: str, credentials: Credentials = NO_CREDENTIALS) -> str:
    """Returns in words what is at the address, of which a call has found that no service of ours can be reached."""
    if address.startswith(LIST_PREFIXES):
        return f"no server answers at {address}"
    try:
        parsed = parse_address(address)
    except ValueError as error:
        return f"the address {address} {error}"
    if isinstance(parsed, TcpAddress) and parsed.port == 0:
        return f"the address {address} has port 0, which means any free port and is only for servers"
    try:
        first = await _exchange_greetings(parsed)
    except TimeoutError:
        return f"nothing answers at {address}; is it the right address, and open in the firewall?"
    except socket.gaierror:
        return f"there is no host of the name in {address}"
    except (FileNotFoundError, ConnectionRefusedError):
        return f"no server listens at {address}"
    except OSError as error:
        return f"can't connect to {address} ({error.strerror or error})"
    expects_tls = credentials.ca is not None and isinstance(parsed, TcpAddress)
    if first is not None and first[3:4] == bytes([SETTINGS_FRAME]):
        if expects_tls:
            return f"the server at {address} does not use TLS; unset DGX_MUSIC_TLS_CA"
        return f"the server at {address} answers, but has ended the call"
    if expects_tls and (problem := await _explain_tls(parsed, credentials)) is not None:
        return f"the server at {address} {problem}"
    return f"{address} {await _describe_program(parsed, first)}"


async def _connect(address: TcpAddress | UnixAddress, tls: ssl.SSLContext | None = None) -> Streams:
    async with asyncio.timeout(TIMEOUT_SECONDS):
        if isinstance(address, UnixAddress):
            return await asyncio.open_unix_connection(address.path, ssl=tls, server_hostname="" if tls else None)
        return await asyncio.open_connection(address.host, address.port, ssl=tls)


async def _exchange_greetings(address: TcpAddress | UnixAddress) -> bytes | None:
    """Returns the first bytes that the server answers; empty if it closes the connection, None if it says nothing.

    Raises OSError if there is no connection.
    """
    reader, writer = await _connect(address)
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            writer.write(HTTP2_GREETING)
            return await reader.read(len(HTTP2_GREETING))
    except TimeoutError:
        return None
    except OSError:
        return b""
    finally:
        await _close(writer)


async def _describe_program(address: TcpAddress | UnixAddress, first: bytes | None) -> str:
    if first is None:
        return "accepts the connection and says nothing; it belongs to another program, or its server hangs"
    if first.startswith((b"HTTP/1", b"<")):  # Some web servers answer an unknown version with a page alone.
        return "belongs to another program, a web server (HTTP/1)"
    if await _speaks_tls(address):
        return (
            "requires TLS; if it is a server of DGX Music, set DGX_MUSIC_TLS_CA to its certification authority's file"
        )
    if first:
        return "belongs to another program, which does not speak gRPC"
    return "closes the connection at once; it belongs to another program, or its server was ending just now"


async def _explain_tls(address: TcpAddress | UnixAddress, credentials: Credentials) -> str | None:
    """Returns why a connection with the client's certificates fails, or None if the server does not speak TLS."""
    try:
        reader, writer = await _connect(address, _build_context(credentials))
    except ssl.SSLCertVerificationError as error:
        return (
            f"can't be trusted: {error.verify_message}; check DGX_MUSIC_TLS_CA, and that the address is one of the "
            "names in the server's certificate"
        )
    except OSError:
        return None
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            writer.write(HTTP2_GREETING)
            if await reader.read(1):
                return "answers, but has ended the call"
    except (OSError, TimeoutError):
        pass
    finally:
        await _close(writer)
    if credentials.certificate is None:
        return "accepts only clients with a certificate; set DGX_MUSIC_TLS_CERTIFICATE and DGX_MUSIC_TLS_KEY"
    return "does not accept the client's certificate, DGX_MUSIC_TLS_CERTIFICATE"


def _build_context(credentials: Credentials) -> ssl.SSLContext:
    ca = None if credentials.ca in (None, SYSTEM_CA) else os.path.expanduser(str(credentials.ca))
    context = ssl.create_default_context(cafile=ca)
    if credentials.certificate is not None and credentials.key is not None:
        context.load_cert_chain(os.path.expanduser(credentials.certificate), os.path.expanduser(credentials.key))
    context.set_alpn_protocols(["h2"])
    return context


async def _speaks_tls(address: TcpAddress | UnixAddress) -> bool:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # Nothing is sent.
    try:
        _, writer = await _connect(address, context)
    except OSError:
        return False
    await _close(writer)
    return True


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


async def explain_unknown_method(channel: grpc.aio.Channel, address: str, full_name: str) -> str:
    """Returns in words what the server at the address is, of which a call has found that it lacks a method of ours."""
    health: Any = health_pb2_grpc.HealthStub(channel)  # grpc_health has no types.
    try:
        await health.Check(health_pb2.HealthCheckRequest(service=full_name), timeout=TIMEOUT_SECONDS)
    except grpc.aio.AioRpcError:
        return f"the server at {address} is a gRPC server, but not {full_name}"
    return f"the server at {address} does not know this command; its version of DGX Music is another one"
