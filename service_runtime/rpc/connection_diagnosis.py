"""Finds out why a server can't be reached, by a connection of its own: gRPC's reports are about sockets and frames."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from typing import Any

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dgx_music.address import TcpAddress, UnixAddress, names_several, parse_address
from dgx_music.credentials import NO_CREDENTIALS, Credentials
from service_runtime.rpc.tls_diagnosis import (
    client_context,
    explain_alert,
    explain_rejected_server,
    explain_unusable_files,
    unverified_context,
)

TIMEOUT_SECONDS = 2.0
"""How long another program may take to accept the connection, and then to say something."""
HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""The preface with which a client begins, and an empty SETTINGS frame (RFC 9113, sections 3.4 and 6.5)."""
SETTINGS_FRAME = 4
"""The type of the frame that a server sends first, in the fourth byte."""

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def explain_unreachable(
    address: str, credentials: Credentials = NO_CREDENTIALS, *, way_out: str | None = None
) -> str:
    """Returns in words what is at the address, of which a call has found that no service of ours can be reached there.

    `credentials` are those of the call. `way_out` is added unless what was found has one of its own.
    """
    problem = await _find_problem(address, credentials)
    return f"{problem}; {way_out}" if way_out and "DGX_MUSIC_TLS_" not in problem else problem


async def _find_problem(address: str, credentials: Credentials) -> str:
    if names_several(address):
        return f"no server at {address} answers and is SERVING"
    try:
        parsed = parse_address(address)
    except ValueError as error:
        return f"the address {address} {error}"
    if isinstance(parsed, TcpAddress) and parsed.port == 0:
        return f"the address {address} has port 0, which means any free port and is only for servers"
    try:
        if credentials.ca is not None and isinstance(parsed, TcpAddress):
            if (problem := await _find_tls_problem(parsed, address, credentials)) is not None:
                return problem
            return f"the server at {address} responds, but ended the call"
        first = await _exchange_greetings(parsed)
    except TimeoutError:
        return f"nothing answers at {address}; is it the right address, and open in the firewall?"
    except socket.gaierror:
        return f"there is no host of the name in {address}"
    except (FileNotFoundError, ConnectionRefusedError):
        return f"no server listens at {address}"
    except OSError as error:
        return f"can't connect to {address} ({error.strerror or error})"
    if _is_http2(first):
        return f"the server at {address} responds, but ended the call"
    return f"{address} {await _describe_program(parsed, first)}"


async def _find_tls_problem(address: TcpAddress, name: str, credentials: Credentials) -> str | None:
    """Returns what is wrong with TLS connections to the server; None if one works. Raises OSError if there is none."""
    try:
        context = client_context(credentials)
    except OSError as error:
        return explain_unusable_files(credentials, error)
    try:
        first = await _exchange_greetings(address, context)
    except ssl.SSLCertVerificationError as error:
        return explain_rejected_server(address, name, credentials.ca, error)
    except (ssl.SSLError, ConnectionResetError):
        if _is_http2(await _exchange_greetings(address)):
            return f"the server at {name} does not use TLS; unset DGX_MUSIC_TLS_CA, or use the server's TLS address"
        return f"{name} belongs to another program, which does not speak TLS"
    # A server of TLS 1.3 judges the client's certificate after the handshake (RFC 8446, section 4.4.2.4).
    return None if _is_http2(first) else explain_alert(name, credentials)


def _is_http2(first: bytes | None) -> bool:
    return first is not None and first[3:4] == bytes([SETTINGS_FRAME])


async def _connect(address: TcpAddress | UnixAddress, tls: ssl.SSLContext | None = None) -> Streams:
    async with asyncio.timeout(TIMEOUT_SECONDS):
        if isinstance(address, UnixAddress):
            return await asyncio.open_unix_connection(address.path, ssl=tls, server_hostname="" if tls else None)
        return await asyncio.open_connection(address.host, address.port, ssl=tls)


async def _exchange_greetings(address: TcpAddress | UnixAddress, tls: ssl.SSLContext | None = None) -> bytes | None:
    """Returns the first bytes that the server answers; empty if it closes the connection, None if it says nothing.

    Raises OSError if there is no connection.
    """
    reader, writer = await _connect(address, tls)
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
    match await _tls_protocol(address):
        case "h2":
            return (
                "requires TLS; set DGX_MUSIC_TLS_CA to the file of its certificate authority (`dgx-music tls init` "
                "writes one on the server), or to system"
            )
        case str():
            return "belongs to another program, which requires TLS"
    if first:
        return "belongs to another program, which does not speak gRPC"
    return "closes the connection at once; it belongs to another program, or its server was ending just now"


async def _tls_protocol(address: TcpAddress | UnixAddress) -> str | None:
    """Returns the protocol that the server agrees on by TLS, empty for none; None if it does not speak TLS."""
    try:
        _, writer = await _connect(address, unverified_context())
    except OSError:
        return None
    protocol = writer.get_extra_info("ssl_object").selected_alpn_protocol()
    await _close(writer)
    return protocol or ""


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()  # A goodbye over TLS may wait 30 s for an answer.
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
