"""The beginning of a finished generation as a small MP3."""

from __future__ import annotations

import grpc.aio

from dgx_music.client.async_client import AsyncClient
from dgx_music.error_status import to_exception
from dgx_music.export.v1.export_pb2 import DownloadRequest

SAMPLE_RATE_HZ, CHANNELS, BIT_RATE_KBPS = 24_000, 1, 64
"""Of the MP3, whose bit rate is constant: its length follows from its size, and it can be cut off anywhere."""
BYTES_PER_SECOND = BIT_RATE_KBPS * 1000 // 8
FRAME_BYTES = 192
"""The first frame has no audio, but tells players about the others."""
MEDIA_TYPE = "audio/mpeg"
TAG_HEADER_BYTES = 10
"""Of an ID3v2 tag; its last 4 bytes are the size of the rest, with 7 bits in each."""
DOWNLOAD_TIMEOUT_SECONDS = 60.0


async def read_preview(client: AsyncClient, generation_id: str, seconds: float) -> bytes:
    """Returns the first `seconds` of a finished generation, or all of it if it is shorter. Raises ServiceError."""
    render = await client.render(
        generation_id, format="mp3", sample_rate=SAMPLE_RATE_HZ, channels=CHANNELS, bit_rate=BIT_RATE_KBPS
    )
    header = await _read(client, generation_id, render.render_id, TAG_HEADER_BYTES)
    tag_bytes = TAG_HEADER_BYTES + sum(byte << shift for byte, shift in zip(header[-4:], (21, 14, 7, 0), strict=True))
    return await _read(
        client, generation_id, render.render_id, tag_bytes + FRAME_BYTES + round(seconds * BYTES_PER_SECOND)
    )


async def _read(client: AsyncClient, generation_id: str, render_id: str, byte_count: int) -> bytes:
    request = DownloadRequest(generation_id=generation_id, render_id=render_id, byte_count=byte_count)
    try:
        responses = client.music.Download(request, timeout=DOWNLOAD_TIMEOUT_SECONDS)
        return b"".join([response.data async for response in responses])
    except grpc.aio.AioRpcError as error:
        raise to_exception(error) from error
