"""What clients of two storage servers on one Postgres see, and of one on SQLite, is linearizable for each generation:
requests repeat, answers are lost, servers are killed around a commit, workers die, and clocks differ by hours."""

from __future__ import annotations

import asyncio
import shutil
import signal
import uuid
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
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
    *(
        "complete late",
        "renew late",
        "fail late",
        "cancel",
        "cancel hastily",
        "retry",
        "retry hastily",
        "delete",
        "delete hastily",
    ),
]
RACES = [
    [["claim", "hand_back", "claim", "renew late", "fail late", "complete late", "get"], ["get", "get"]],
    [["claim", "complete"], ["claim", "complete"], ["cancel", "get"], ["delete", "create", "get"]],
    [["claim", "give_up", "retry", "claim", "complete late"], ["retry", "claim", "complete"]],
    [["create"], ["create"], ["delete", "create"], ["create hastily", "get"]],
]
"""What conflicts most. In the first, a worker whose generation has gone to another writes."""
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


@pytest.mark.parametrize("empty_url", ["sqlite", pytest.param("postgres", marks=pytest.mark.slow)], indirect=True)
async def test_histories_are_linearizable(
    url: str, addresses: list[str], open_database: Callable[..., Database]
) -> None:
    async with AsyncExitStack() as stack:
        for address in addresses:
            await stack.enter_async_context(storage_server(url, address))
        channels = [await stack.enter_async_context(connect(address)) for address in addresses]
        for script in RACES:
            await check(await play(channels, script))
        await play_examples(channels, settings().max_examples // (20 if len(channels) > 1 else 40))
    assert is_clean(url, open_database)


KILLS = ["storage.before_commit:kill@4", "storage.after_commit:kill@3", "storage.after_commit:kill@7"]
BUSY = [
    ["claim", "renew", "complete", "create", "claim", "get"],
    ["create", "cancel", "retry", "claim", "fail"],
    ["claim", "fail", "claim", "give_up", "retry", "claim", "complete"],
    ["get", "delete", "create", "claim", "complete", "get"],
]
"""Enough changes for every server to reach its failpoint, whatever the order."""


@pytest.mark.slow
@pytest.mark.parametrize("empty_url", ["postgres"], indirect=True)
async def test_histories_are_linearizable_though_a_server_is_killed_at_a_commit(
    url: str, addresses: list[str], open_database: Callable[..., Database]
) -> None:
    async with storage_server(url, addresses[1]), connect(addresses[1]) as other:
        for kill in KILLS:
            played: list[ObservedClients] = []
            async with (
                storage_server(url, addresses[0], DGX_MUSIC_FAILPOINT=kill) as killed,
                connect(addresses[0]) as channel,
                asyncio.timeout(60),
            ):
                while killed.returncode is None:
                    played.append(await play([other, channel], BUSY))
            assert killed.returncode == -signal.SIGKILL
            for clients in played:
                await check(clients)
    assert is_clean(url, open_database)


IN_TIME = [
    [["claim briefly", "expiry", "complete", "get"], ["get", "renew"], ["get", "claim patiently", "complete"]],
    [["claim briefly", "renew", "get", "complete"], ["get", "cancel", "get"]],
    [["claim", "fail", "claim patiently", "fail", "get", "claim patiently", "complete"], ["get", "get"]],
    [["claim briefly"], ["claim patiently", "complete"]],
]
"""Leases and retry delays that end, and others that must not."""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("faketime") is None, reason="faketime is not installed")
@pytest.mark.parametrize("empty_url", ["postgres"], indirect=True)
async def test_clocks_of_the_servers_do_not_matter(
    url: str, addresses: list[str], open_database: Callable[..., Database]
) -> None:
    async with AsyncExitStack() as stack:
        for address, offset in zip(addresses, ("+1h", "-1h"), strict=True):
            prefix, real_timers = ("faketime", "-f", offset), {"FAKETIME_DONT_FAKE_MONOTONIC": "1"}
            await stack.enter_async_context(storage_server(url, address, prefix=prefix, **real_timers))
        channels = [await stack.enter_async_context(connect(address)) for address in addresses]
        for script in IN_TIME:
            for order in (channels, channels[::-1]):
                await check(await play(order, script))
        await check_pages([StorageServiceStub(channel) for channel in channels])
    assert is_clean(url, open_database)


async def check_pages(stubs: Sequence[StorageServiceStub]) -> None:
    """A list that is continued at the other server is complete and newest first, and its times are the database's."""
    request = pb.CreateGenerationRequest(
        prompt="in order", model_name="listed", duration_seconds=1, sample_rate_hz=32000, channels=2
    )
    made = [(await stubs[number % 2].CreateGeneration(request, timeout=60)).generation for number in range(5)]
    listed, token = [], ""
    for number in range(3):
        page = await stubs[number % 2].ListGenerations(
            pb.ListGenerationsRequest(model_name="listed", page_size=2, page_token=token), timeout=60
        )
        listed += [row.id for row in page.generations]
        token = page.next_page_token
    assert listed == [row.id for row in reversed(made)]
    assert all(abs(row.created_at.ToDatetime(tzinfo=UTC) - datetime.now(UTC)) < timedelta(minutes=30) for row in made)
