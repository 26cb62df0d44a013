"""Sends requests, generated from the descriptors, to every method of every service, each in a process of its own:

    python -m tests.fuzz.requests --count 10000 --seed 1

No answer is INTERNAL or UNKNOWN, none shows a path or a traceback, none takes longer than its deadline, and afterwards
all services are healthy, their logs without an unexpected error, the database legal and memory bounded.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random

from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from dgx_music.audio.v1 import audio_pb2
from dgx_music.export.v1 import export_pb2
from dgx_music.gateway.v1 import gateway_pb2
from dgx_music.generation.v1 import generation_pb2
from dgx_music.storage.v1 import storage_pb2
from storage_service.config import StorageSettings
from storage_service.db import schema
from storage_service.db.database import Database
from storage_service.maintenance.integrity import find_violations
from tests.fuzz.fuzzed_calls import FuzzedCall, FuzzedMethod, Tally, methods_of
from tests.fuzz.known_objects import KnownObjects
from tests.support.health import SERVING, read_health
from tests.support.postgres import postgres_server, scratch_database
from tests.support.service_processes import ServiceProcesses, service_processes

SERVICES = {
    "storage": storage_pb2.DESCRIPTOR.services_by_name["StorageService"],
    "export": export_pb2.DESCRIPTOR.services_by_name["ExportService"],
    "generation": generation_pb2.DESCRIPTOR.services_by_name["GenerationService"],
    "gateway": gateway_pb2.DESCRIPTOR.services_by_name["MusicService"],
}
COMMON = (
    health_pb2.DESCRIPTOR.services_by_name["Health"],
    reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"],
)
"""Every server has these."""
CONCURRENT_CALLS = 8
MAX_GROWTH_BYTES = 400 << 20
"""Of one service's memory. Codecs and models take some on their first use."""
MAX_LINE_CHARACTERS = 8000
"""Of a log."""
FORMATS = (
    audio_pb2.FILE_FORMAT_WAV_PCM_24,
    audio_pb2.FILE_FORMAT_FLAC_16,
    audio_pb2.FILE_FORMAT_OGG_VORBIS,
    audio_pb2.FILE_FORMAT_MP3,
)


class Fuzzer:
    """Sends `count` requests to running services, from several callers at once."""

    def __init__(self, services: ServiceProcesses, seed: int) -> None:
        self._services, self._seed = services, seed
        self._known = KnownObjects()
        self.tally = Tally()
        self.problems: list[str] = []

    async def prepare(self) -> None:
        """Creates generations in each state, in several formats, and a render, so that requests can name them."""
        music = self._services.music
        ids = []
        for output_format in FORMATS:
            request = storage_pb2.CreateGenerationRequest(
                prompt="house", model_name="sketch", duration_seconds=0.5, output={"format": output_format}
            )
            ids.append((await music.CreateGeneration(request)).generation.id)
        for state in ("pending", "cancelled", "failed"):
            request = storage_pb2.CreateGenerationRequest(
                prompt=state, model_name="unserved", duration_seconds=1, sample_rate_hz=8000, channels=1, max_attempts=1
            )
            created = (await self._services.storage.CreateGeneration(request)).generation
            self._known.learn(created)
            if state == "cancelled":
                await music.CancelGeneration(storage_pb2.CancelGenerationRequest(id=created.id))
        claim = storage_pb2.ClaimGenerationRequest(worker_id="fuzz", model_names=["unserved"], lease_seconds=600)
        self._known.learn(await self._services.storage.ClaimGeneration(claim))
        for generation_id in ids:
            async for update in music.WatchGeneration(storage_pb2.WatchGenerationRequest(id=generation_id)):
                self._known.learn(update)
            assert update.generation.state == storage_pb2.GENERATION_STATE_COMPLETED, update
        render = export_pb2.RenderRequest(generation_id=ids[0], output={"format": FORMATS[1]})
        self._known.learn(await music.Render(render))

    def _methods(self) -> list[FuzzedMethod]:
        methods: list[FuzzedMethod] = []
        for name, descriptor in SERVICES.items():
            for service in (descriptor, *COMMON):
                methods += methods_of(service, self._services.channel(name))
        return methods

    async def run(self, count: int) -> None:
        methods, numbers = self._methods(), iter(range(count))

        async def call() -> None:
            for number in numbers:
                rng = Random(f"{self._seed}:{number}")
                one = FuzzedCall(methods[number % len(methods)], rng, self._known)
                problems = await one.run()
                self.tally.add(one)
                self.problems += [f"request {number} of seed {self._seed}: {problem}\n  {one}" for problem in problems]

        await asyncio.gather(*(call() for _ in range(CONCURRENT_CALLS)))


async def check_health(services: ServiceProcesses, memory: dict[str, list[int]]) -> list[str]:
    """Returns what is wrong with the services after the requests, and adds what memory they use."""
    problems = []
    for name, process in services.running.items():
        if not process.is_running:
            problems.append(f"{name} has ended: {process.log()[-3000:]}")
            continue
        if await read_health(services.channel(name)) != SERVING:
            problems.append(f"{name} is not SERVING")
        memory[name].append(process.memory_bytes())
        growth = memory[name][-1] - memory[name][0]
        if growth > MAX_GROWTH_BYTES:
            problems.append(f"{name} has grown by {growth >> 20} MiB")
        for line in process.log().splitlines():
            if len(line) > MAX_LINE_CHARACTERS:
                problems.append(f"the log of {name} has a line of {len(line)} characters: {line[:300]} … {line[-300:]}")
            if any(sign in line for sign in ("unexpected_error", "Traceback", '"exception"', '"level": "critical"')):
                problems.append(f"the log of {name}: {line[:3000]}")
    url = services.settings.get("DGX_MUSIC_DATABASE_URL")
    with Database(url or StorageSettings(data_dir=services.data_dir).resolved_database_url()) as database:
        problems += [f"db check: {finding}" for finding in find_violations(database)]
    return problems


@contextmanager
def _postgres_database() -> Iterator[str]:
    with postgres_server() as connection, scratch_database(connection) as url:
        schema.upgrade(url)
        yield url


async def fuzz(data_dir: Path, count: int, seed: int, database_url: str | None = None) -> tuple[Tally, list[str]]:
    """Sends so many requests; returns the counts and the problems."""
    settings = {"DGX_MUSIC_LEASE_SWEEP_SECONDS": "1"}
    if database_url is not None:
        settings["DGX_MUSIC_DATABASE_URL"] = database_url
    async with service_processes(data_dir, **settings) as services:
        fuzzer = Fuzzer(services, seed)
        await fuzzer.prepare()
        memory = fuzzer.tally.memory
        memory |= {name: [process.memory_bytes()] for name, process in services.running.items()}
        await fuzzer.run(count)
        return fuzzer.tally, fuzzer.problems + await check_health(services, memory)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=10_000, help="number of requests (default: 10000)")
    parser.add_argument("--seed", type=int, default=1, help="(default: 1)")
    parser.add_argument("--database", choices=("sqlite", "postgres"), default="sqlite", help="(default: sqlite)")
    options = parser.parse_args(arguments)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="dgx-music-fuzz-") as folder, ExitStack() as stack:
        url = stack.enter_context(_postgres_database()) if options.database == "postgres" else None
        tally, problems = asyncio.run(fuzz(Path(folder) / "data", options.count, options.seed, url))
    print(tally)
    for problem in problems:
        print(problem)
    print(
        f"{options.count} requests, seed {options.seed}, {time.monotonic() - started:.0f} s: {len(problems)} problems"
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
