"""`GET /api/generations/{id}/live`: the samples from any frame on, as they are generated."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from dgx_music.audio.v1.audio_pb2 import (
    AUDIO_LEVEL_FINAL,
    AUDIO_LEVEL_LIVE,
    AUDIO_LEVEL_UNSPECIFIED,
    AudioHeader,
    AudioLevel,
)
from dgx_music.client.async_client import AsyncClient
from dgx_music.errors import DataLoss, InvalidArgument, ServiceError
from dgx_music.export.v1.export_pb2 import StreamAudioRequest
from dgx_music.limits import MAX_CHANNELS, MAX_SAMPLE_RATE_HZ
from dgx_music.pcm import PcmReader
from gateway.studio.gateway_calls import stream
from gateway.web.connected_callers import run_while_connected
from gateway.web.gateway_clients import GatewayClients
from gateway.web.request_log import CutOff
from service_runtime.observability.logging import get_logger

log = get_logger(__name__)

LEVELS = {"": AUDIO_LEVEL_UNSPECIFIED, "LIVE": AUDIO_LEVEL_LIVE, "FINAL": AUDIO_LEVEL_FINAL}
MAX_DIGITS = 18
"""Of a number of frames, which is below 2^63. Python refuses to convert thousands."""


class LiveAudio:
    """Sends raw float32 samples, little-endian and interleaved, as soon as each chunk has arrived. Those of a finished
    file can be had at another sample rate and with another number of channels.

    The headers say what they are. If the samples end before the music does, the connection is cut without the body's
    end: the page then goes on from the frame that it has reached.
    """

    def __init__(self, clients: GatewayClients, stopping: asyncio.Event) -> None:
        """`stopping` is set when the server stops."""
        self._clients, self._stopping = clients, stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        wanted = StreamAudioRequest(
            generation_id=request.path_params["id"],
            start_frame=whole_number(request, "start_frame"),
            level=_level_of(request),
            sample_rate_hz=whole_number(request, "sample_rate_hz", MAX_SAMPLE_RATE_HZ),
            channels=whole_number(request, "channels", MAX_CHANNELS),
        )
        async with self._clients.client_for(request) as client:
            await run_while_connected(_send_samples(client, wanted, send), receive, self._stopping)


def whole_number(request: Request, name: str, highest: int | None = None) -> int:
    """Returns a parameter of the query, 0 if it is not given. Raises InvalidArgument."""
    text = request.query_params.get(name, "0")
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS):
        raise InvalidArgument(name, f"must be a whole number from 0 on, not {text[:40]!r}")
    if highest is not None and int(text) > highest:
        raise InvalidArgument(name, f"must be at most {highest}, not {text}")
    return int(text)


def _level_of(request: Request) -> AudioLevel:
    name = request.query_params.get("level", "")
    if name not in LEVELS:
        raise InvalidArgument("level", f"must be LIVE or FINAL, not {name[:40]!r}")
    return LEVELS[name]


async def _send_samples(client: AsyncClient, wanted: StreamAudioRequest, send: Send) -> None:
    reader: PcmReader | None = None
    try:
        async with aclosing(stream(client.music.StreamAudio, wanted)) as parts:
            async for part in parts:
                match part.WhichOneof("part"):
                    case "header":
                        reader = PcmReader(part.header)
                        await send(
                            {
                                "type": "http.response.start",
                                "status": 200,
                                "headers": _headers(part.header, wanted.start_frame),
                            }
                        )
                        # The page knows at once that it has begun, before there is a sample.
                        await send({"type": "http.response.body", "body": b"", "more_body": True})
                    case "chunk" if reader is not None:
                        await send({"type": "http.response.body", "body": reader.accept(part.chunk), "more_body": True})
                    case "end" if reader is not None:
                        reader.finish(part.end)
                        await send({"type": "http.response.body", "body": b""})
                        return
        raise DataLoss("the audio stream has no end", reason="STREAM_BROKEN")
    except ServiceError as error:
        if reader is None:
            raise
        log.info("live_audio_cut_off", generation_id=wanted.generation_id, code=error.code, reason=error.reason)
        raise CutOff from error


def _headers(header: AudioHeader, start_frame: int) -> list[tuple[bytes, bytes]]:
    level = "FINAL" if header.level == AUDIO_LEVEL_FINAL else "LIVE"
    values = {
        "content-type": "application/octet-stream",
        "cache-control": "no-store",
        "dgx-music-sample-rate": header.sample_rate_hz,
        "dgx-music-channels": header.channels,
        "dgx-music-level": level,
        "dgx-music-attempt": header.attempt,
        "dgx-music-expected-frames": header.expected_frames,
        "dgx-music-start-frame": start_frame,
    }
    return [(name.encode(), str(value).encode()) for name, value in values.items()]
