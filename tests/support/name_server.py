"""`NameServer`: a DNS server on loopback whose records a test changes while it runs, as Kubernetes does when pods come
and go."""

from __future__ import annotations

import asyncio
import ipaddress
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import cast

A_RECORD, INTERNET = 1, 1
QUESTION = struct.Struct("!HHHHHH")
"""Id, flags, and the numbers of questions, answers, authorities and additional records (RFC 1035, section 4.1.1)."""
ANSWER_FLAGS = 0x8480
"""A response, authoritative, and recursion is available."""


class NameServer(asyncio.DatagramProtocol):
    """Answers each question for IPv4 addresses with `hosts`, whatever the name."""

    def __init__(self) -> None:
        self.hosts: Sequence[str] = ()
        self.questions = 0
        self.address = ""
        """`host:port` of the server itself."""
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)
        self.address = "{}:{}".format(*transport.get_extra_info("sockname")[:2])

    def datagram_received(self, data: bytes, client: tuple[str, int]) -> None:
        assert self._transport is not None
        end = data.index(0, QUESTION.size) + 5
        kind, _ = struct.unpack("!HH", data[end - 4 : end])
        hosts = self.hosts if kind == A_RECORD else ()
        self.questions += kind == A_RECORD
        answer = QUESTION.pack(struct.unpack("!H", data[:2])[0], ANSWER_FLAGS, 1, len(hosts), 0, 0)
        answer += data[QUESTION.size : end]
        for host in hosts:
            # The name is that of the question, at byte 12; nothing may be kept.
            answer += struct.pack("!HHHIH", 0xC00C, A_RECORD, INTERNET, 0, 4) + ipaddress.IPv4Address(host).packed
        self._transport.sendto(answer, client)


@asynccontextmanager
async def name_server() -> AsyncIterator[NameServer]:
    """Runs a server while the block runs."""
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(
        NameServer, local_addr=("127.0.0.1", 0)
    )
    try:
        yield server
    finally:
        transport.close()
