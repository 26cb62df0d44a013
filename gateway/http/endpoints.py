"""What the paths do: generate music and send it, list the models, tell the health."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from dgx_music import channel
from dgx_music.client.async_client import AsyncClient
from dgx_music.credentials import Credentials
from dgx_music.errors import InvalidArgument, NotFound, ServiceError, Unavailable
from dgx_music.generation.v1.generation_pb2 import Model
from gateway.http.audio_body import AudioBody, open_body
from gateway.http.gateway_clients import GatewayClients
from gateway.http.http_errors import reject
from gateway.http.music_request import MusicRequest, RequestBody
from service_runtime.observability.logging import get_logger
from service_runtime.rpc.health.health_check import require_serving

log = get_logger(__name__)

MAX_BODY_BYTES = 1 << 20
READ_SECONDS = 30.0
"""How long a body may take to arrive: a caller who never finishes it would keep others out."""
GENERATION_HEADER = "dgx-music-generation"
GATEWAY = "dgx_music.gateway.v1.MusicService"


class MusicEndpoint:
    """Generates the music that the JSON body asks for, and sends it. If the caller goes away, cancels it."""

    def __init__(self, clients: GatewayClients, body_type: type[RequestBody]) -> None:
        self._clients, self._body_type = clients, body_type

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        # Also keeps web pages out: a browser sends JSON to another site only if that allows it, and this does not.
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            response = reject(415, "the Content-Type must be application/json", "unsupported_media_type")
            return await response(scope, receive, send)
        async with self._clients.client_for(request) as client:  # First: of a caller without a token no body is read.
            try:
                content = await asyncio.wait_for(_read(request), READ_SECONDS)
            except TimeoutError:
                response = reject(408, f"the body did not arrive within {READ_SECONDS:g} s", "request_timeout")
                return await response(scope, receive, send)
            if content is None:
                response = reject(413, f"the body must have at most {MAX_BODY_BYTES} bytes", "request_too_large")
                return await response(scope, receive, send)
            body = self._body_type.parse(content)
            wanted = body.to_music_request(request.query_params, request.headers)
            delivery = asyncio.ensure_future(self._deliver(client, body, wanted, send))
            await _run_while_connected(delivery, receive)
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


async def _run_while_connected(delivery: asyncio.Future[None], receive: Receive) -> None:
    """Waits for the delivery, and cancels it once the caller has gone away."""
    departure = asyncio.ensure_future(_wait_for_disconnect(receive))
    try:
        await asyncio.wait((delivery, departure), return_when=asyncio.FIRST_COMPLETED)
        if delivery.done():
            delivery.result()
    finally:
        for task in (departure, delivery):
            task.cancel()
        await asyncio.gather(departure, delivery, return_exceptions=True)


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _read(request: Request) -> bytes | None:
    """Returns the body; None if it is too large."""
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > MAX_BODY_BYTES:
            return None
    return bytes(content)


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


class HealthEndpoint:
    """Tells whether the gateway can be used, to anyone."""

    def __init__(self, gateway_address: str, credentials: Credentials) -> None:
        self._gateway_address, self._credentials = gateway_address, credentials

    async def get(self, request: Request) -> Response:
        """Answers `GET /health` with 200 or 503."""
        async with channel.connect(self._gateway_address, self._credentials) as gateway_channel:
            try:
                await require_serving(gateway_channel, self._gateway_address, GATEWAY)
            except Unavailable as error:
                log.warning("gateway_unavailable", problem=error.message)  # Its address is nothing for strangers.
                return JSONResponse({"status": "unavailable"}, 503)
        return JSONResponse({"status": "ok"})
