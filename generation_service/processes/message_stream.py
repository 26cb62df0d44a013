"""Sends Python objects through a socket between two processes of this service."""

from __future__ import annotations

import asyncio
import pickle
import socket
import struct
from contextlib import suppress
from typing import Any, Self

_HEADER = struct.Struct("<Q")
"""The length of the pickled object that follows, in bytes."""
MAX_MESSAGE_BYTES = 1 << 32
"""More than the longest melody. A damaged length would otherwise have memory filled."""


class MessageStream:
    """One end of a socket pair. pickle is safe here: the other end is a process that this service has started."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, end: socket.socket) -> Self:
        """Takes over an end of a `socket.socketpair`."""
        return cls(*await asyncio.open_unix_connection(sock=end))

    def send(self, message: object) -> None:
        """Queues a message; does nothing once the other process has ended. What is queued is bounded by the frames of
        audio that the reader of each request has not taken yet."""
        if not self._writer.is_closing():
            data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
            self._writer.writelines((_HEADER.pack(len(data)), data))

    async def receive(self) -> Any:
        """Returns the next message. Raises EOFError once the other process has ended, and whatever reading one raises
        that is damaged."""
        try:
            (length,) = _HEADER.unpack(await self._reader.readexactly(_HEADER.size))
            if length > MAX_MESSAGE_BYTES:
                raise ValueError(f"a message of {length} bytes was announced")
            data = await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise EOFError("the other process has closed the connection") from error
        return pickle.loads(data)  # noqa: S301  # From a process of our own, see above.

    async def close(self) -> None:
        """Sends what is queued, and closes the socket."""
        self._writer.close()
        with suppress(ConnectionError):  # The other process has ended.
            await self._writer.wait_closed()
