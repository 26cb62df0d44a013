"""How long a verified token is remembered, and how many questions callers cause."""

from __future__ import annotations

import asyncio

import pytest

from dgx_music.access.v1 import access_pb2
from dgx_music.errors import Unauthenticated, Unavailable
from service_runtime.access import token_verifier
from service_runtime.access.caller import Scope
from service_runtime.access.token_verifier import TokenCache
from tests.support.access_services import TokenRegistry


@pytest.fixture
async def registry() -> TokenRegistry:
    return TokenRegistry()


async def test_valid_token_is_asked_for_once_in_a_while(
    registry: TokenRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(token_verifier.time, "monotonic", lambda: clock[0])
    secret, cache = registry.issue(Scope.READ, "laptop"), TokenCache(registry)
    assert (await cache.verify(secret)).name == "laptop"
    registry.revoke(secret)
    clock[0] += 1.9
    await cache.verify(secret)
    assert registry.verifications == 1
    clock[0] += 0.1
    with pytest.raises(Unauthenticated):
        await cache.verify(secret)


async def test_calls_at_once_share_a_verification_and_none_takes_it_from_the_others(registry: TokenRegistry) -> None:
    released = asyncio.Event()

    class Slow:
        async def verify_token(self, token_id: str, secret_sha256: bytes) -> access_pb2.Token:
            await released.wait()
            return await registry.verify_token(token_id, secret_sha256)

    secret, cache = registry.issue(Scope.READ), TokenCache(Slow())
    first, *others = [asyncio.create_task(cache.verify(secret)) for _ in range(10)]
    await asyncio.sleep(0)
    first.cancel()
    released.set()
    assert len({token.id for token in await asyncio.gather(*others)}) == 1
    assert registry.verifications == 1


async def test_expiry_counts_also_for_a_token_that_is_remembered(
    registry: TokenRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret, cache = registry.issue(Scope.READ, lifetime_seconds=3600), TokenCache(registry)
    await cache.verify(secret)
    later = token_verifier.time.time_ns() + 3601 * 10**9
    monkeypatch.setattr(token_verifier.time, "time_ns", lambda: later)
    with pytest.raises(Unauthenticated, match="expired"):
        await cache.verify(secret)


async def test_expiry_counts_also_if_the_clock_of_the_verifier_is_behind(
    registry: TokenRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Behind:
        async def verify_token(self, token_id: str, secret_sha256: bytes) -> access_pb2.Token:
            with monkeypatch.context() as patched:
                patched.setattr(token_verifier.time, "time_ns", time_ns)
                return await registry.verify_token(token_id, secret_sha256)

    time_ns = token_verifier.time.time_ns
    secret = registry.issue(Scope.READ, lifetime_seconds=3600)
    later = time_ns() + 3601 * 10**9
    monkeypatch.setattr(token_verifier.time, "time_ns", lambda: later)
    with pytest.raises(Unauthenticated, match="expired"):
        await TokenCache(Behind()).verify(secret)


async def test_expiry_counts_also_while_the_token_cannot_be_verified(
    registry: TokenRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret, cache = registry.issue(Scope.READ, lifetime_seconds=3600), TokenCache(registry, valid_seconds=0)
    token = await cache.verify(secret)
    registry.problem = Unavailable("away", reason="AWAY")
    with pytest.raises(Unavailable):
        await cache.verify_again(secret, token)
    later = token_verifier.time.time_ns() + 3601 * 10**9
    monkeypatch.setattr(token_verifier.time, "time_ns", lambda: later)
    with pytest.raises(Unauthenticated, match="expired"):
        await cache.verify_again(secret, token)


async def test_failures_are_not_remembered(registry: TokenRegistry) -> None:
    secret, cache = registry.issue(Scope.READ), TokenCache(registry)
    registry.problem = Unavailable("away", reason="AWAY")
    with pytest.raises(Unavailable):
        await cache.verify(secret)
    registry.problem = None
    await cache.verify(secret)


async def test_memory_is_bounded(registry: TokenRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_verifier, "MAX_REMEMBERED", 3)
    cache = TokenCache(registry)
    for _ in range(10):
        await cache.verify(registry.issue(Scope.READ))
    assert len(cache._remembered) <= 3
