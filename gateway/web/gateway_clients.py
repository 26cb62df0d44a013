"""Connects to the gateway for each caller of a web server, with the token that the caller sent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.requests import Request

from dgx_music.client.async_client import AsyncClient
from dgx_music.errors import Unauthenticated
from service_runtime.access.authentication import TOKEN_REQUIRED
from service_runtime.access.token_format import read_token_id

TOKEN_PREFIX = "dgxm_"
API_KEY_HINT = (
    "this server requires a token; as the API key, use one from `dgx-music token create`, which is sent as "
    "`Authorization: Bearer TOKEN`"
)
BEARER = "bearer "
CLIENT_HEADER = "dgx-music-client"
MAX_NAME_CHARACTERS = 64
MAX_KEPT = 64
"""Connections that are kept while nobody uses them."""


@dataclass(slots=True)
class _KeptClient:
    client: AsyncClient
    users: int = 0
    """How many requests use it now."""


class GatewayClients:
    """Connects to the gateway on behalf of those who call this server. Connections are kept for their next request."""

    def __init__(
        self,
        gateway_address: str,
        requires_tokens: bool,
        *,
        kind: str = "http",
        read_key: Callable[[Request], str] | None = None,
        hint: str = API_KEY_HINT,
    ) -> None:
        """`kind` is how callers are named who don't name themselves, before their host. `read_key` finds the key in a
        request, by default in its headers. `hint` tells a caller without a token how to show one."""
        self._gateway_address, self._requires_tokens = gateway_address, requires_tokens
        self._kind, self._read_key, self._hint = kind, read_key or read_header_key, hint
        self._kept: dict[tuple[str | None, str], _KeptClient] = {}
        """By token and name; those used last come last."""

    @asynccontextmanager
    async def client_for(self, request: Request) -> AsyncIterator[AsyncClient]:
        """Yields a client that shows the gateway the token of the request.

        Raises Unauthenticated if a token is needed and there is none, or if it is not like one. Where none is needed, a
        key that can't be a token is left out: many programs insist on sending one.
        """
        key = self._read_key(request)
        token = key if key.startswith(TOKEN_PREFIX) else None
        if token is not None:
            read_token_id(token)
        elif self._requires_tokens:
            raise Unauthenticated(self._hint, reason=TOKEN_REQUIRED)
        caller = token, self._name_of(request)
        kept = self._kept.pop(caller, None) or _KeptClient(
            AsyncClient(self._gateway_address, token=token, client_name=caller[1])
        )
        self._kept[caller] = kept
        kept.users += 1
        try:
            yield kept.client
        finally:
            kept.users -= 1
            await self._close_idle(MAX_KEPT)

    async def aclose(self) -> None:
        """Closes all connections that are not in use."""
        await self._close_idle(0)

    def _name_of(self, request: Request) -> str:
        host = request.client.host if request.client else "local"
        return (request.headers.get(CLIENT_HEADER) or f"{self._kind} {host}")[:MAX_NAME_CHARACTERS]

    async def _close_idle(self, max_kept: int) -> None:
        idle = [caller for caller, kept in self._kept.items() if not kept.users]
        for caller in idle[: max(0, len(self._kept) - max_kept)]:
            await self._kept.pop(caller).client.aclose()


def read_header_key(request: Request) -> str:
    """Returns the key in the request's headers; empty if there is none."""
    authorization = request.headers.get("authorization", "")
    if authorization[: len(BEARER)].lower() == BEARER:
        return authorization[len(BEARER) :].strip()
    return request.headers.get("xi-api-key", "").strip()
