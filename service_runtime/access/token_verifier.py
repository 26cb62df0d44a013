"""Verifies tokens, and remembers for a moment which are valid."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from dgx_music.access.v1 import access_pb2
from dgx_music.errors import Unauthenticated
from service_runtime.access.token_format import hash_token, read_token_id

VALID_SECONDS = 2.0
"""How long a token that was found valid is assumed to remain valid."""
MAX_REMEMBERED = 10_000
"""How many tokens in use at a time are remembered."""


@runtime_checkable
class TokenVerifier(Protocol):
    """Knows the tokens: storage by its database, other servers by asking storage."""

    async def verify_token(self, token_id: str, secret_sha256: bytes) -> access_pb2.Token:
        """Returns the token if it is valid now.

        Raises Unauthenticated if there is none, the hash is another one, or it has expired or was revoked; any other
        ServiceError if that can't be found out, e.g. Unavailable.
        """


@dataclass(frozen=True, slots=True)
class _Remembered:
    token: access_pb2.Token
    until: float
    """By `time.monotonic()`."""


class TokenCache:
    """Verifies tokens as clients show them. Calls that show the same token at once share one verification."""

    def __init__(self, verifier: TokenVerifier, valid_seconds: float = VALID_SECONDS) -> None:
        self._verifier, self._valid_seconds = verifier, valid_seconds
        self._remembered: dict[bytes, _Remembered] = {}
        self._running: dict[bytes, asyncio.Task[access_pb2.Token]] = {}

    async def verify(self, token: str) -> access_pb2.Token:
        """Returns what the token grants. Raises Unauthenticated if it is not valid, and what the verifier raises."""
        key = hash_token(token)
        remembered = self._remembered.get(key)
        is_fresh = remembered is not None and time.monotonic() < remembered.until
        verified = remembered.token if remembered and is_fresh else await self._ask(key, read_token_id(token))
        _require_unexpired(verified)
        return verified

    async def verify_again(self, bearer: str, token: access_pb2.Token) -> None:
        """Raises Unauthenticated if `token`, which `verify` has returned for `bearer`, is not valid any more; what the
        verifier raises if it can't be asked, unless the token has expired meanwhile."""
        _require_unexpired(token)
        await self.verify(bearer)

    async def _ask(self, key: bytes, token_id: str) -> access_pb2.Token:
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = asyncio.create_task(self._verify(key, token_id))
            task.add_done_callback(asyncio.Task.exception)  # Of use to no one if all callers have left.
        return await asyncio.shield(task)  # A caller that leaves must not take the answer from the others.

    async def _verify(self, key: bytes, token_id: str) -> access_pb2.Token:
        started_at = time.monotonic()
        try:
            token = await self._verifier.verify_token(token_id, key)
        except BaseException:
            self._remembered.pop(key, None)
            raise
        finally:
            del self._running[key]
        if len(self._remembered) >= MAX_REMEMBERED:
            self._remembered.clear()
        self._remembered[key] = _Remembered(token, started_at + self._valid_seconds)
        return token


def _require_unexpired(token: access_pb2.Token) -> None:
    if token.HasField("expires_at") and token.expires_at.ToNanoseconds() <= time.time_ns():
        raise Unauthenticated(
            "the token has expired; ask the server's administrator for a new one (`dgx-music token create`)",
            reason="TOKEN_EXPIRED",
            metadata={"token_id": token.id},
        )
