"""The body of a response: the finished file, or samples while they are being generated."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

import grpc.aio

from dgx_music.client.async_client import AsyncClient
from dgx_music.client.async_generation import AsyncGeneration
from dgx_music.client.connection import STREAM_TIMEOUT_SECONDS
from dgx_music.error_status import to_exception
from dgx_music.export.v1.export_pb2 import DownloadRequest
from dgx_music.response_stream import read_stream
from gateway.http.music_request import MusicRequest
from gateway.http.pcm_encoding import PcmEncoder, wav_header

EVENTS_TYPE = "text/event-stream"


@dataclass(frozen=True, slots=True)
class AudioBody:
    """What is sent once the first of it is there."""

    headers: dict[str, str]
    parts: AsyncIterator[bytes]


async def open_body(client: AsyncClient, generation: AsyncGeneration, request: MusicRequest) -> AudioBody:
    """Waits for the first audio, or for the finished file, and returns the body with its headers. Raises ServiceError,
    also while the parts are read."""
    is_live = request.is_live and request.format.name in ("wav", "pcm")
    if not is_live:
        await generation.wait()
    if is_live or request.format.is_pcm:
        body = await _open_samples(generation, request)
    else:
        body = await _open_file(client, generation, request)
    if request.as_events:
        return AudioBody({"content-type": EVENTS_TYPE}, _as_events(body.parts))
    return body


async def _open_file(client: AsyncClient, generation: AsyncGeneration, request: MusicRequest) -> AudioBody:
    stream = client.music.Download(DownloadRequest(generation_id=generation.id), timeout=STREAM_TIMEOUT_SECONDS)
    responses = read_stream(stream)
    try:
        first = await anext(responses)
    except grpc.aio.AioRpcError as error:
        raise to_exception(error) from error

    async def parts() -> AsyncIterator[bytes]:
        yield first.data
        try:
            async for response in responses:
                yield response.data
        except grpc.aio.AioRpcError as error:
            raise to_exception(error) from error
        finally:
            stream.cancel()

    headers = {
        "content-type": request.format.media_type,
        "content-length": str(first.file_size_bytes),
        "content-disposition": f'inline; filename="{first.file_name}"',
    }
    return AudioBody(headers, parts())


async def _open_samples(generation: AsyncGeneration, request: MusicRequest) -> AudioBody:
    stream = await generation.stream().start()
    encoder = PcmEncoder(stream.sample_rate, stream.channels, request.format.sample_rate, request.format.channels)
    media_type, header = request.format.media_type, b""
    if request.format.is_pcm:
        media_type += f";rate={encoder.sample_rate};channels={encoder.channels}"
    else:
        frames = stream.expected_frames if encoder.sample_rate == stream.sample_rate else None
        comment = f"AI-generated music; generation={generation.id}; model={generation.model}"
        header = wav_header(encoder.sample_rate, encoder.channels, frames, comment)

    async def parts() -> AsyncIterator[bytes]:
        if header:
            yield header
        async with aclosing(stream):
            async for chunk in stream:
                if encoded := encoder.encode(chunk.samples):
                    yield encoded
        if rest := encoder.finish():
            yield rest

    return AudioBody({"content-type": media_type}, parts())


async def _as_events(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yields OpenAI's events of a speech stream."""
    async for part in parts:
        yield _event(type="speech.audio.delta", audio=base64.b64encode(part).decode())
    yield _event(type="speech.audio.done", usage={"input_tokens": 0, "output_tokens": 0, "total_tokens": 0})


def _event(**fields: object) -> bytes:
    return f"data: {json.dumps(fields)}\n\n".encode()
