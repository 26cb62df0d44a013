"""What the paths do: generate music and send it, list the models."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from dgx_music.client.async_client import AsyncClient
from dgx_music.errors import InvalidArgument, NotFound, ServiceError
from dgx_music.generation.v1.generation_pb2 import Model
from gateway.http.audio_body import AudioBody, open_body
from gateway.http.http_errors import OpenAiErrors
from gateway.http.music_request import MusicRequest, RequestBody
from gateway.web.connected_callers import run_while_connected
from gateway.web.gateway_clients import GatewayClients
from gateway.web.request_body import read_body, refuse_other_types

ERRORS = OpenAiErrors()
GENERATION_HEADER = "dgx-music-generation"


class MusicEndpoint:
    """Generates the music that the JSON body asks for, and sends it. If the caller goes away, cancels it."""

    def __init__(self, clients: GatewayClients, body_type: type[RequestBody]) -> None:
        self._clients, self._body_type = clients, body_type

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if (refusal := refuse_other_types(request, ERRORS)) is not None:
            return await refusal(scope, receive, send)
        async with self._clients.client_for(request) as client:  # First: of a caller without a token no body is read.
            content = await read_body(request, ERRORS)
            if isinstance(content, Response):
                return await content(scope, receive, send)
            body = self._body_type.parse(content)
            wanted = body.to_music_request(request.query_params, request.headers)
            await run_while_connected(self._deliver(client, body, wanted, send), receive)
        return None

    async def _deliver(self, client: AsyncClient, body: RequestBody, wanted: MusicRequest, send: Send) -> None:
        creation = asyncio.ensure_future(client.submit(wanted.prompt, **wanted.options))
        try:
            generation = await asyncio.shield(creation)
            await _send(await open_body(client, generation, wanted), generation.id, send)
        except InvalidArgument as error:
            raise body.rename(error) from error
        except asyncio.CancelledError:
            # A creation that is on its way is awaited: what has no id can't be cancelled.
            with suppress(ServiceError):  # It may have finished, or the gateway is gone.
                await (await creation).cancel()
            raise
        # A caller who has all the audio may leave, also if the file is still being written.
        await send({"type": "http.response.body", "body": b""})


async def _send(audio: AudioBody, generation_id: str, send: Send) -> None:
    """Sends all but the end of the response."""
    headers = {**audio.headers, GENERATION_HEADER: generation_id}
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": 200, "headers": encoded})
    async for part in audio.parts:
        await send({"type": "http.response.body", "body": part, "more_body": True})


class ModelEndpoints:
    """The models that can be used, in OpenAI's words."""

    def __init__(self, clients: GatewayClients) -> None:
        self._clients = clients

    async def get_all(self, request: Request) -> Response:
        """Answers `GET /v1/models`. The default model comes first."""
        return JSONResponse({"object": "list", "data": [_describe(model) for model in await self._usable(request)]})

    async def get(self, request: Request) -> Response:
        """Answers `GET /v1/models/NAME`."""
        name = request.path_params["name"]
        for model in await self._usable(request):
            if model.name == name:
                return JSONResponse(_describe(model))
        raise NotFound("model", name, "GET /v1/models lists them")

    async def _usable(self, request: Request) -> list[Model]:
        async with self._clients.client_for(request) as client:
            return [model for model in await client.models() if not model.problem]


def _describe(model: Model) -> dict[str, object]:
    return {
        "id": model.name,
        "object": "model",
        "created": 0,
        "owned_by": "dgx-music",
        "description": model.description,
        "max_duration_seconds": model.max_duration_seconds,
    }
