"""The tokens of a server's users, for its administrator."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Literal

from dgx_music.access.v1.access_pb2 import (
    CreateTokenRequest,
    CreateTokenResponse,
    ListTokensRequest,
    RevokeTokenRequest,
    Token,
    TokenLimits,
)
from dgx_music.client.connection import Connection

TokenScope = Literal["read", "generate", "admin"]


class AsyncTokens:
    """Creates, lists and revokes tokens; needs a token with the scope admin, or a server on this machine."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def create(
        self,
        name: str,
        scope: TokenScope = "generate",
        *,
        expires_at: datetime | None = None,
        calls_per_minute: int = 0,
        max_queued: int = 0,
        minutes_per_day: float = 0.0,
    ) -> CreateTokenResponse:
        """Creates a token. Its `secret` is what `Client(token=…)` takes, and is returned only now.

        The limits are 0 for none: calls per minute, generations that are queued or running at a time, and minutes of
        audio in 24 hours. Raises AlreadyExists if a valid token has this name.
        """
        request = CreateTokenRequest(
            name=name,
            scope=f"SCOPE_{scope.upper()}",
            limits=TokenLimits(
                calls_per_minute=calls_per_minute, max_queued=max_queued, minutes_per_day=minutes_per_day
            ),
        )
        if expires_at is not None:
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
