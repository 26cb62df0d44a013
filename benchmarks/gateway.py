"""Measures the gateway with all of its services on this machine: `make bench-gateway`.

    python -m benchmarks.gateway [--overload-seconds 60] [--only calls,streams,overload,listeners,paced]

What a call takes through the gateway and straight from the service behind it is measured in turns, call by call, so
that a busy machine slows both alike. The clients are in this process, and have to share the machine with the servers.
In the overload minute, 500 clients create generations and 200 listen, all from a single server process; a client that
is refused waits for as long as it is told. Then 200 clients listen to 20 generations that are being generated, ten to
each, with a process for each service. How long the same generations take without listeners is measured before and
after; both with `sketch`, which competes with the listeners for the CPU, and with a model that computes as little
between its steps as one on a GPU. Prints Markdown.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from dgx_music.audio.v1.audio_pb2 import AUDIO_LEVEL_LIVE
from dgx_music.channel import connect
from dgx_music.export.v1.export_pb2 import StreamAudioRequest
from dgx_music.export.v1.export_pb2_grpc import ExportServiceStub
from dgx_music.gateway.v1.gateway_pb2_grpc import MusicServiceStub
from dgx_music.storage.v1 import storage_pb2 as storage
from dgx_music.storage.v1.storage_pb2_grpc import StorageServiceStub
from tests.support.load_clients import (
    LoadReport,
    create_finished,
    final_states,
    milliseconds,
    music_stubs,
    run_creators,
    run_listeners,
    watched_health,
)
from tests.support.server_processes import SERVICES, Servers, serving

CALL_COUNT = 2000
CONCURRENT_CALLS = 16
STREAM_COUNT = 20
STREAM_AUDIO_SECONDS = 120.0
CREATORS, LISTENERS = 500, 200
OVERLOAD_AUDIO_SECONDS = 1.0
"""Of the generations that are created; those that are listened to take `LISTENED_AUDIO_SECONDS`."""
LISTENED_AUDIO_SECONDS = 8.0
LIVE_GENERATIONS = 20
LIVE_AUDIO_SECONDS = 60.0
TIMEOUT_SECONDS = 600.0


def median_ms(seconds: list[float]) -> float:
    return statistics.median(seconds) * 1000


async def measure_calls(servers: Servers) -> None:
    """Prints how long GetGeneration takes through the gateway and from storage, and how many calls a second fit."""
    async with _stubs(servers) as (music, behind, _):
        [finished] = await create_finished(music, 1.0, 1)
        request = storage.GetGenerationRequest(id=finished.id)
        times: dict[str, list[float]] = {"gateway": [], "storage": []}
        for number in range(CALL_COUNT):
            in_turn = [("gateway", music), ("storage", behind)]
            for name, stub in in_turn if number % 2 else reversed(in_turn):
                started_at = time.perf_counter()
                await stub.GetGeneration(request, timeout=TIMEOUT_SECONDS)
                times[name].append(time.perf_counter() - started_at)
        added = [with_it - without for with_it, without in zip(times["gateway"], times["storage"], strict=True)]
        print("| unary call | median |\n| --- | --- |")
        for name, seconds in times.items():
            print(f"| GetGeneration from {name} | {median_ms(seconds):.2f} ms |")
        print(f"| added by the gateway (median of the differences) | {median_ms(added):.2f} ms |")
        for name, stub in (("gateway", music), ("storage", behind)):
            rate = await _calls_per_second(lambda stub=stub: stub.GetGeneration(request, timeout=TIMEOUT_SECONDS))
            print(f"| calls a second from {name}, {CONCURRENT_CALLS} at a time | {rate:.0f} |")


async def _calls_per_second(call: Callable[[], Awaitable[Any]]) -> float:
    async def repeat() -> None:
        for _ in range(CALL_COUNT // CONCURRENT_CALLS):
            await call()

    started_at = time.perf_counter()
    await asyncio.gather(*(repeat() for _ in range(CONCURRENT_CALLS)))
    return CALL_COUNT // CONCURRENT_CALLS * CONCURRENT_CALLS / (time.perf_counter() - started_at)


async def measure_streams(servers: Servers) -> None:
    """Prints how fast the audio of a file is streamed through the gateway and from export, and when it begins."""
    async with _stubs(servers) as (music, _, behind):
        [finished] = await create_finished(music, STREAM_AUDIO_SECONDS, 1)
        request = StreamAudioRequest(generation_id=finished.id)
        first: dict[str, list[float]] = {"gateway": [], "export": []}
        rates: dict[str, list[float]] = {"gateway": [], "export": []}
        for number in range(STREAM_COUNT):
            in_turn = [("gateway", music), ("export", behind)]
            for name, stub in in_turn if number % 2 else reversed(in_turn):
                started_at, size = time.perf_counter(), 0
                async for response in stub.StreamAudio(request, timeout=TIMEOUT_SECONDS):
                    if response.HasField("chunk"):
                        if not size:
                            first[name].append(time.perf_counter() - started_at)
                        size += len(response.chunk.pcm)
                rates[name].append(size / (time.perf_counter() - started_at) / 1e6)
        print("\n| one stream | first chunk, median | MB/s, median |\n| --- | --- | --- |")
        for name in first:
            print(f"| from {name} | {median_ms(first[name]):.2f} ms | {statistics.median(rates[name]):.0f} |")


async def measure_overload(folder: Path, seconds: float) -> None:
    """Prints what creators and listeners of an overloaded server see."""
    async with (
        serving(folder) as servers,
        connect(servers.addresses["gateway"]) as channel,
        music_stubs(servers.addresses["gateway"], CREATORS) as creators,
        music_stubs(servers.addresses["gateway"], LISTENERS) as listeners,
    ):
        report, highest = LoadReport(), [0]
        finished = await create_finished(creators[0], LISTENED_AUDIO_SECONDS, 5)
        async with watched_health(channel, report), _sampled_memory(servers, "", highest):
            await asyncio.gather(
                run_creators(creators, seconds, OVERLOAD_AUDIO_SECONDS, report),
                run_listeners(listeners, *_live_requests(finished), report, seconds),
            )
        kept = await final_states(creators[0], report.kept)
        cancelled = await final_states(creators[0], report.cancelled)
    print(f"\n{CREATORS} creators, {LISTENERS} listeners, {seconds:g} s, one server process:\n")
    for name, value in report.summary().items():
        print(f"- {name}: {value}")
    print(f"- states of the kept: {dict(kept)}; of the cancelled: {dict(cancelled)}")
    print(f"- highest resident memory of the server: {highest[0] / 1e6:.0f} MB")


def _live_requests(generations: list[storage.Generation]) -> tuple[list[StreamAudioRequest], dict[str, str]]:
    """Returns requests for the samples as generated, and their SHA-256 by generation."""
    requests = [StreamAudioRequest(generation_id=each.id, level=AUDIO_LEVEL_LIVE) for each in generations]
    return requests, {each.id: each.metadata["pcm_sha256"] for each in generations}


async def measure_listeners(folder: Path, model: str, generation_module: str | None) -> None:
    """Prints how fast generations run with and without listeners, and the gateway's memory."""
    settings = {"DGX_MUSIC_MAX_BATCH_SIZE": str(LIVE_GENERATIONS)}
    async with (
        serving(folder, *SERVICES, generation_module=generation_module, **settings) as servers,
        music_stubs(servers.addresses["gateway"], LISTENERS) as stubs,
    ):
        report, highest = LoadReport(), [0]
        await create_finished(stubs[0], 1.0, 1)
        without = [await _generate_all(stubs[0], 100)]
        ids = await _create_all(stubs[0], 200)
        requests = [StreamAudioRequest(generation_id=generation_id, level=AUDIO_LEVEL_LIVE) for generation_id in ids]
        before = {name: servers.cpu_seconds(name) for name in SERVICES}
        started_at = time.perf_counter()
        async with _sampled_memory(servers, "gateway", highest):
            heard = asyncio.create_task(run_listeners(stubs, requests, {}, report))
            finished = [await _wait(stubs[0], generation_id) for generation_id in ids]
            with_listeners = time.perf_counter() - started_at
            await heard
        used = {name: round(servers.cpu_seconds(name) - before[name], 1) for name in SERVICES}
        without.append(await _generate_all(stubs[0], 300))
        right = {each.id: each.metadata["pcm_sha256"] for each in finished}
        wrong = sum(right[generation_id] != sha256 for generation_id, sha256 in report.heard)
    count = f"{LISTENERS} listeners to {LIVE_GENERATIONS} live generations of {LIVE_AUDIO_SECONDS:g} s"
    print(f"\n{count}, model {model}, four processes:\n")
    print(
        f"- streams heard to the end: {len(report.heard)}, with wrong samples: {wrong}; errors: {dict(report.errors)}"
    )
    print(f"- behind real time at most, median, 99 % and maximum in ms: {milliseconds(report.late_seconds)}")
    print(f"- highest resident memory of the gateway: {highest[0] / 1e6:.0f} MB")
    print(f"- processor seconds until the last listener has ended: {used}")
    listed = " and ".join(f"{seconds:.2f}" for seconds in without)
    print(f"- seconds to generate them: {with_listeners:.2f} with listeners, {listed} without, before and after")


async def _create_all(music: Any, seed: int) -> list[str]:
    requests = [
        storage.CreateGenerationRequest(prompt="house", duration_seconds=LIVE_AUDIO_SECONDS, seed=seed + number)
        for number in range(LIVE_GENERATIONS)
    ]
    batch = storage.BatchCreateGenerationsRequest(requests=requests)
    created = await music.BatchCreateGenerations(batch, timeout=TIMEOUT_SECONDS)
    return [each.id for each in created.generations]


async def _wait(music: Any, generation_id: str) -> storage.Generation:
    request = storage.WatchGenerationRequest(id=generation_id)
    async for change in music.WatchGeneration(request, timeout=TIMEOUT_SECONDS):
        last = change.generation
    assert last.state == storage.GENERATION_STATE_COMPLETED, last.error_message
    return last


async def _generate_all(music: Any, seed: int) -> float:
    """Returns how many seconds the live generations take without listeners."""
    started_at = time.perf_counter()
    for generation_id in await _create_all(music, seed):
        await _wait(music, generation_id)
    return time.perf_counter() - started_at


@asynccontextmanager
async def _sampled_memory(servers: Servers, name: str, highest: list[int]) -> AsyncIterator[None]:
    async def sample() -> None:
        while True:
            highest[0] = max(highest[0], servers.memory_bytes(name))
            await asyncio.sleep(0.1)

    task = asyncio.create_task(sample())
    try:
        yield
    finally:
        task.cancel()


@asynccontextmanager
async def _stubs(servers: Servers) -> AsyncIterator[tuple[Any, Any, Any]]:
    """Gives stubs of the gateway, of storage and of export."""
    async with (
        connect(servers.addresses["gateway"]) as gateway,
        connect(servers.addresses["storage"]) as behind,
        connect(servers.addresses["export"]) as export,
    ):
        yield MusicServiceStub(gateway), StorageServiceStub(behind), ExportServiceStub(export)


async def main() -> None:
    """Measures what is asked for."""
    parser = argparse.ArgumentParser(description="Measures the gateway.")
    parser.add_argument("--overload-seconds", type=float, default=60.0)
    parser.add_argument("--only", default="calls,streams,overload,listeners,paced", help="What to measure.")
    options = parser.parse_args()
    wanted = options.only.split(",")
    print(f"Python {platform.python_version()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f} before\n")
    with tempfile.TemporaryDirectory() as folder:
        if {"calls", "streams"} & set(wanted):
            async with serving(Path(folder, "four"), *SERVICES) as servers:
                if "calls" in wanted:
                    await measure_calls(servers)
                if "streams" in wanted:
                    await measure_streams(servers)
        if "overload" in wanted:
            await measure_overload(Path(folder, "one"), options.overload_seconds)
        if "listeners" in wanted:
            await measure_listeners(Path(folder, "sketch"), "sketch", None)
        if "paced" in wanted:
            await measure_listeners(Path(folder, "paced"), "paced", "tests.support.paced_server")


if __name__ == "__main__":
    asyncio.run(main())
