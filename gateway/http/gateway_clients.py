"""Connects to the gateway for each caller of the HTTP endpoints, with the token that the caller sent."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from dgx_music.client.async_client import AsyncClient
from dgx_music.errors import Unauthenticated
from service_runtime.access.authentication import TOKEN_REQUIRED

TOKEN_PREFIX = "dgxm_"
BEARER = "bearer "
CLIENT_HEADER = "dgx-music-client"
MAX_NAME_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class GatewayClients:
    """Builds clients of the gateway on behalf of those who call this server."""

    gateway_address: str
    requires_tokens: bool

    def client_for(self, request: Request) -> AsyncClient:
        """Returns a client that shows the gateway the token of the request. The caller of this closes it.

        Raises Unauthenticated if a token is needed and there is none. Where none is needed, a key that can't be a token
        is left out: many programs insist on sending one.
        """
        key = _key_of(request)
        token = key if key.startswith(TOKEN_PREFIX) else None
        if token is None and self.requires_tokens:
            raise Unauthenticated(
                "this server requires a token; as the API key, use one from `dgx-music token create`, which is sent as "
                "`Authorization: Bearer TOKEN`",
                reason=TOKEN_REQUIRED,
            )
        return AsyncClient(self.gateway_address, token=token, client_name=_name_of(request))


def _key_of(request: Request) -> str:
    authorization = request.headers.get("authorization", "")
    if authorization[: len(BEARER)].lower() == BEARER:
        return authorization[len(BEARER) :].strip()
    return request.headers.get("xi-api-key", "").strip()


def _name_of(request: Request) -> str:
    host = request.client.host if request.client else "local"
    return (request.headers.get(CLIENT_HEADER) or f"http {host}")[:MAX_NAME_CHARACTERS]
