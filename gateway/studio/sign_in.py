"""`/api/studio`, `/api/sign-in` and `/api/sign-out`: what the page has to know first, and the token in its cookie."""

from __future__ import annotations

import json
from contextlib import suppress
from importlib.metadata import version

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dgx_music.client.generation_options import FORMATS
from dgx_music.errors import InvalidArgument, PermissionDenied, Unauthenticated
from dgx_music.storage.v1.storage_pb2 import ListGenerationsRequest
from gateway.studio.gateway_calls import call
from gateway.studio.studio_errors import ERRORS
from gateway.web.gateway_clients import TOKEN_PREFIX, GatewayClients, read_header_key
from gateway.web.request_body import read_body, refuse_other_types
from service_runtime.access.authentication import TOKEN_REQUIRED

COOKIE = "dgx-music-token"
COOKIE_PATH = "/api"
"""The page itself needs no token, so that it can ask for one."""
HINT = "this Studio requires a token; sign in with one from `dgx-music token create`"


def read_key(request: Request) -> str:
    """Returns the token of the request's headers, or else that of the page's cookie; empty if there is none."""
    return read_header_key(request) or request.cookies.get(COOKIE, "")


class SignIn:
    """Keeps the token in a cookie that no script can read and no other site's page can use."""

    def __init__(self, clients: GatewayClients, *, requires_token: bool) -> None:
        self._clients, self._requires_token = clients, requires_token

    async def describe(self, request: Request) -> Response:
        """Answers `GET /api/studio`."""
        has_token = read_key(request).startswith(TOKEN_PREFIX)
        return JSONResponse(
            {
                "version": version("dgx-music"),
                "requires_token": self._requires_token,
                "signed_in": has_token or not self._requires_token,
                "has_token": has_token,
                "formats": list(FORMATS),
            }
        )

    async def sign_in(self, request: Request) -> Response:
        """Answers `POST /api/sign-in`, whose body is {"token": …}. Raises Unauthenticated for one that is not valid."""
        if (refusal := refuse_other_types(request, ERRORS)) is not None:
            return refusal
        content = await read_body(request, ERRORS)
        if isinstance(content, Response):
            return content
        token = _parse_token(content)
        signed_in = Request(_with_token(request, token), request.receive)
        async with self._clients.client_for(signed_in) as client:
            with suppress(PermissionDenied):  # It is valid, though not for this.
                await call(client.music.ListGenerations, ListGenerationsRequest(page_size=1))
        response = JSONResponse({"signed_in": True})
        response.set_cookie(
            COOKIE, token, path=COOKIE_PATH, httponly=True, samesite="strict", secure=request.url.scheme == "https"
        )
        return response

    async def sign_out(self, request: Request) -> Response:
        """Answers `POST /api/sign-out`."""
        response = JSONResponse({"signed_in": False})
        response.delete_cookie(
            COOKIE, path=COOKIE_PATH, httponly=True, samesite="strict", secure=request.url.scheme == "https"
        )
        return response


def _parse_token(content: bytes) -> str:
    try:
        token = json.loads(content)["token"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidArgument("token", 'the body must be {"token": "dgxm_…"}') from error
    if not isinstance(token, str) or not token.strip().startswith(TOKEN_PREFIX):
        raise Unauthenticated(
            f"this is not a token of DGX Music, which begins with {TOKEN_PREFIX}; `dgx-music token create` makes one",
            reason=TOKEN_REQUIRED,
        )
    return token.strip()


def _with_token(request: Request, token: str) -> dict[str, object]:
    headers = [(name, value) for name, value in request.scope["headers"] if name != b"authorization"]
    return {**request.scope, "headers": [*headers, (b"authorization", f"Bearer {token}".encode(errors="replace"))]}
