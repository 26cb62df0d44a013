"""What clients of two storage servers on one Postgres see, and of one on SQLite, is linearizable for each generation:
requests repeat, answers are lost, servers are killed around a commit, workers die, and clocks differ by hours."""

from __future__ import annotations

import asyncio
import shutil
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import grpc.aio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dgx_music.channel import connect
from dgx_music.storage.v1 import storage_pb2 as pb
from dgx_music.storage.v1.storage_pb2_grpc import StorageServiceStub
from storage_service.db import schema
from storage_service.db.database import Database
from storage_service.maintenance.integrity import find_violations
from tests.support.linearizability import find_order
from tests.support.observed_clients import ObservedClients
from tests.support.storage_servers import storage_server

WORDS = [
    *("create", "create", "create hastily", "claim", "claim", "claim hastily", "get"),
    *("complete", "complete hastily", "fail", "give_up", "hand_back", "renew", "renew hastily"),
    *("cancel", "cancel hastily", "retry", "retry hastily", "delete", "delete hastily"),
]
scripts = st.lists(st.lists(st.sampled_from(WORDS), min_size=2, max_size=6), min_size=2, max_size=4)


@pytest.fixture
def url(empty_url: str) -> str:
    schema.upgrade(empty_url)
    return empty_url


@pytest.fixture
def addresses(url: str, tmp_path: Path) -> list[str]:
    """Of two servers on Postgres; SQLite has one."""
    return [f"unix:{tmp_path}/{name}.sock" for name in ("a" if url.startswith("sqlite") else "ab")]


async def play(channels: Sequence[grpc.aio.Channel], script: Sequence[Sequence[str]]) -> ObservedClients:
    """Creates a generation, then lets all clients make their calls at once."""
    clients = ObservedClients(channels, uuid.uuid4().hex, str(uuid.uuid4()))
    await clients.run([["create"]])
    await clients.run(script)
    return clients


async def check(clients: ObservedClients) -> None:
    final = await clients.final()
    in_order = sorted(clients.history, key=lambda one: one.began)
    assert find_order(in_order, final), "\n".join(map(str, (*in_order, final)))


def is_clean(url: str, open_database: Callable[..., Database]) -> bool:
    return list(find_violations(open_database(url))) == []


async def play_examples(channels: Sequence[grpc.aio.Channel], examples: int) -> None:
    loop = asyncio.get_running_loop()

    @settings(max_examples=examples, suppress_health_check=[HealthCheck.too_slow])
    @given(scripts)
    def play_any(script: list[list[str]]) -> None:
        async def play_one() -> None:
            await check(await play(channels, script))

        asyncio.run_coroutine_threadsafe(play_one(), loop).result()

    await asyncio.to_thread(play_any)


async def test_histories_are_linearizable(
    url: str, addresses: list[str], open_database: Callable[..., Database]
) -> None:
    async with AsyncExitStack() as stack:
        for address in addresses:
            await stack.enter_async_context(storage_server(url, address))
        channels = [await stack.enter_async_context(connect(address)) for address in addresses]
        await play_examples(channels, settings().max_examples // 100)
    assert is_clean(url, open_database)
