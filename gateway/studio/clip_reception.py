"""`POST /api/clips`: passes the bytes of an audio file on to ImportClip, as they arrive."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import grpc.aio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from dgx_music.client.async_client import AsyncClient
from dgx_music.export.v1.export_pb2 import ImportClipRequest, ImportClipResponse
from dgx_music.limits import MAX_CHUNK_BYTES
from gateway.studio.gateway_calls import WORK_SECONDS, translate
from gateway.studio.method_calls import to_response
from gateway.studio.studio_errors import ERRORS
from gateway.web.gateway_clients import GatewayClients
from service_runtime.rpc.client_stream import ClientStreamCall

STALL_SECONDS = 30.0
"""How long the next bytes may take to arrive."""
MAX_UNREAD_BYTES = 64 << 20
"""Of a file that is refused: so much of its rest is read, since browsers see no answer before they have sent all."""
UNREAD_SECONDS = 10.0
TYPES = ("application/octet-stream", "audio/")


class ClipReception:
    """Stores the audio of the body as a clip, of which no more than a few chunks are ever in memory."""

    def __init__(self, clients: GatewayClients) -> None:
        self._clients = clients

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if not request.headers.get("content-type", "").lower().startswith(TYPES):
            message = "the Content-Type must be application/octet-stream, or that of an audio file"
            response: Response = ERRORS.for_rejection(415, message, "unsupported_media_type")
            return await response(scope, receive, send)
        body = _Body(receive)
        async with self._clients.client_for(request) as client:
            try:
                response = to_response(await _import(client, body))
            except TimeoutError:
                message = f"no more of the file arrived for {STALL_SECONDS:g} s; upload it again"
                response = ERRORS.for_rejection(408, message, "request_timeout")
            except grpc.aio.AioRpcError as error:
                response = ERRORS.for_error(translate(error))
                await body.read_rest()
        return await response(scope, receive, send)


async def _import(client: AsyncClient, body: _Body) -> ImportClipResponse:
    upload = ClientStreamCall(client.music.ImportClip, WORK_SECONDS)
    try:
        while not body.has_ended:
            async with asyncio.timeout(STALL_SECONDS):
                part = await body.read()
            for start in range(0, len(part), MAX_CHUNK_BYTES):
                await upload.write(ImportClipRequest(data=part[start : start + MAX_CHUNK_BYTES]))
        return await upload.finish()
    finally:
        upload.cancel()  # Also of a caller who has gone away: the server keeps nothing of it.


class _Body:
    """The body of a request, part by part."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.has_ended = False

    async def read(self) -> bytes:
        """Returns the next part. Raises ClientDisconnect if the caller has gone away."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        self.has_ended = not message.get("more_body", False)
        part: bytes = message.get("body", b"")
        return part

    async def read_rest(self) -> None:
        """Reads what is still on its way, unless that is much or takes long."""
        unread = 0
        with suppress(TimeoutError, ClientDisconnect):
            async with asyncio.timeout(UNREAD_SECONDS):
                while not self.has_ended and unread < MAX_UNREAD_BYTES:
                    unread += len(await self.read())
