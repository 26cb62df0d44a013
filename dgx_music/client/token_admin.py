"""The tokens of a server's users, for its administrator."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Literal, TypedDict, Unpack

from dgx_music.access.v1.access_pb2 import (
    CreateTokenRequest,
    CreateTokenResponse,
    ListTokensRequest,
    RevokeTokenRequest,
    Token,
    TokenLimits,
)
from dgx_music.client.connection import Connection
from dgx_music.client.option_signature import spell_out

TokenScope = Literal["read", "generate", "admin"]


class TokenOptions(TypedDict, total=False):
    """What the bearer of a token may do; a limit of 0 stands for none."""

    scope: TokenScope
    """read, generate or admin, each with those before it. Default: generate."""
    expires_at: datetime | None
    """When it expires; a time without a zone is local. Default: never."""
    calls_per_minute: int
    """Calls per minute, counted by each server."""
    max_queued: int
    """Generations that are queued or running at a time."""
    minutes_per_day: float
    """Minutes of audio created per day (UTC)."""
    weight: float
    """Share of what is generated while several clients wait, in relation to others: 0.1 to 100. Default: 1."""


class AsyncTokens:
    """Creates, lists and revokes tokens; needs a token with the scope admin, or a server on this machine."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @spell_out(TokenOptions)
    async def create(self, name: str, **options: Unpack[TokenOptions]) -> CreateTokenResponse:
        """Creates a token; see `TokenOptions`. Its `secret` is what `Client(token=…)` takes, and is returned only now.

        Raises AlreadyExists if a valid token has this name.
        """
        request = CreateTokenRequest(
            name=name,
            scope=f"SCOPE_{options.get('scope', 'generate').upper()}",
            limits=TokenLimits(
                calls_per_minute=options.get("calls_per_minute", 0),
                max_queued=options.get("max_queued", 0),
                minutes_per_day=options.get("minutes_per_day", 0.0),
            ),
            weight=options.get("weight", 0.0),
        )
        if expires_at := options.get("expires_at"):
            request.expires_at.FromDatetime(expires_at.astimezone(UTC))
        return await self._connection.call(self._connection.music.CreateToken, request)

    async def list(self) -> AsyncGenerator[Token, None]:
        """Yields all tokens, newest first, including those that have expired or were revoked."""
        request = ListTokensRequest()
        while True:
            page = await self._connection.call(self._connection.music.ListTokens, request)
            for token in page.tokens:
                yield token
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def revoke(self, id: str) -> Token:
        """Revokes a token: its open calls end within 5 s. Revoking it again returns the same."""
        request = RevokeTokenRequest(id=id)
        return (await self._connection.call(self._connection.music.RevokeToken, request)).token
