"""Finds out why a server can't be reached, by a connection of its own: gRPC's reports are about sockets and frames."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Any

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dgx_music.address import LIST_PREFIXES, UnixAddress, parse_address

TIMEOUT_SECONDS = 2.0
"""How long another program may take to accept the connection, and then to say something."""
HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""The preface with which a client begins, and an empty SETTINGS frame (RFC 9113, sections 3.4 and 6.5)."""
SETTINGS_FRAME = 4
"""The type of the frame that a server sends first, in the fourth byte."""
TLS_RECORDS = (0x15, 0x16)
"""The first byte of a TLS alert or handshake (RFC 8446, section 5.1)."""


async def explain_unreachable(address: str) -> str:
    """Returns in words what is at the address, of which a call has found that no service of ours can be reached."""
    if address.startswith(LIST_PREFIXES):
        return f"no server answers at {address}"
    try:
        parsed = parse_address(address)
    except ValueError as error:
        return f"the address {address} {error}"
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            if isinstance(parsed, UnixAddress):
                reader, writer = await asyncio.open_unix_connection(parsed.path)
            elif parsed.port == 0:
                return f"the address {address} has port 0, which means any free port and is only for servers"
            else:
                reader, writer = await asyncio.open_connection(parsed.host, parsed.port)
    except TimeoutError:
        return f"nothing answers at {address}; is it the right address, and open in the firewall?"
    except socket.gaierror:
        return f"there is no host of the name in {address}"
    except (FileNotFoundError, ConnectionRefusedError):
        return f"no server listens at {address}"
    except OSError as error:
        return f"can't connect to {address} ({error.strerror or error})"
    try:
        return await _explain_first_bytes(address, reader, writer)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def _explain_first_bytes(address: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    another = f"{address} belongs to another program"
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            writer.write(HTTP2_GREETING)
            await writer.drain()
            first = await reader.read(len(HTTP2_GREETING))
    except TimeoutError:
        return f"{another}, which accepts the connection and says nothing"
    except OSError:
        first = b""
    if not first:
        return f"{another}, which closes the connection at once"
    if first.startswith(b"HTTP/1"):
        return f"{another}, a web server (HTTP/1)"
    if first[0] in TLS_RECORDS:
        return f"{another}, which requires TLS"
    if first[3:4] == bytes([SETTINGS_FRAME]):
        return f"the server at {address} answers, but has ended the call"
    return f"{another}, which does not speak gRPC"


async def explain_unknown_method(channel: grpc.aio.Channel, address: str, full_name: str) -> str:
    """Returns in words what the server at the address is, of which a call has found that it lacks a method of ours."""
    health: Any = health_pb2_grpc.HealthStub(channel)  # grpc_health has no types.
    try:
        await health.Check(health_pb2.HealthCheckRequest(service=full_name), timeout=TIMEOUT_SECONDS)
    except grpc.aio.AioRpcError:
        return f"the server at {address} is a gRPC server, but not {full_name}"
    return f"the server at {address} does not know this command; its version of DGX Music is another one"
