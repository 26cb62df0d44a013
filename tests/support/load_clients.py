"""Gives many clients of one gateway at once: `run_creators`, `run_listeners` and `watched_health`, for tests and
benchmarks of overload. Each checks what it gets, and notes it in a `LoadReport`."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from dgx_music.channel import CHANNEL_OPTIONS
from dgx_music.error_status import read_error_details
from dgx_music.export.v1.export_pb2 import StreamAudioRequest
from dgx_music.gateway.v1.gateway_pb2_grpc import MusicServiceStub
from dgx_music.pcm import PcmReader
from dgx_music.storage.v1 import storage_pb2 as storage

if TYPE_CHECKING:
    from dgx_music.gateway.v1.gateway_pb2_grpc import MusicServiceAsyncStub

CALL_SECONDS = 120.0
CLIENTS_PER_CONNECTION = 10
HEALTH_PAUSE_SECONDS = 0.1


@dataclass
class LoadReport:
    """What the clients have seen."""

    kept: list[str] = field(default_factory=list)
    """Generations that were created and left to run."""
    cancelled: list[str] = field(default_factory=list)
    """Generations that were created and cancelled."""
    accepted_seconds: list[float] = field(default_factory=list)
    refused_seconds: list[float] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)
    """Reason → number."""
    refusals_without_retry_time: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    """Every other error → number."""
    audio_seconds: float = 0.0
    """Audio that listeners have received and verified."""
    heard: list[tuple[str, str]] = field(default_factory=list)
    """Of each stream, the generation's id and the SHA-256 of its samples."""
    late_seconds: list[float] = field(default_factory=list)
    """Of each stream, how far it fell behind real time at most."""
    health: Counter[str] = field(default_factory=Counter)
    """State, or error → number of answers."""
    health_seconds: list[float] = field(default_factory=list)
    health_changes: list[str] = field(default_factory=list)
    """What a watcher of the health has been told."""

    def summary(self) -> dict[str, Any]:
        """Returns the figures, times as median and 99th percentile in milliseconds."""
        return {
            "kept": len(self.kept),
            "cancelled": len(self.cancelled),
            "accepted_ms": milliseconds(self.accepted_seconds),
            "refusals": dict(self.refusals),
            "refused_ms": milliseconds(self.refused_seconds),
            "refusals_without_retry_time": self.refusals_without_retry_time,
            "errors": dict(self.errors),
            "audio_seconds": round(self.audio_seconds),
            "streams": len(self.heard),
            "late_ms": milliseconds(self.late_seconds),
            "health": dict(self.health),
            "health_ms": milliseconds(self.health_seconds),
            "health_changes": self.health_changes,
        }


def milliseconds(seconds: Sequence[float]) -> tuple[float, float, float]:
    """Returns the median, the 99th percentile and the maximum in milliseconds; zeros for an empty sequence."""
    if not seconds:
        return 0.0, 0.0, 0.0
    ordered = sorted(seconds)
    values = statistics.median(ordered), ordered[int(len(ordered) * 0.99)], ordered[-1]
    return tuple(round(value * 1000, 1) for value in values)  # type: ignore[return-value]


@asynccontextmanager
async def music_stubs(address: str, count: int) -> AsyncIterator[list[MusicServiceAsyncStub]]:
    """Gives stubs for `count` clients, ten of which share a connection."""
    options = [*CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
    async with AsyncExitStack() as stack:
        stubs: list[MusicServiceAsyncStub] = []
        for _ in range(-(-count // CLIENTS_PER_CONNECTION)):
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(address, options))
            stubs += [MusicServiceStub(channel)] * CLIENTS_PER_CONNECTION
        yield stubs[:count]


async def run_creators(
    stubs: Sequence[MusicServiceAsyncStub], seconds: float, audio_seconds: float, report: LoadReport
) -> None:
    """Each client creates generations, one after the other, for so many seconds. The first one is kept, the others are
    cancelled. A client that is refused waits for as long as it is told."""
    end_at = time.monotonic() + seconds
    async with asyncio.TaskGroup() as group:
        for number, stub in enumerate(stubs):
            group.create_task(_create_until(end_at, stub, number, audio_seconds, report))


async def _create_until(
    end_at: float, stub: MusicServiceAsyncStub, number: int, audio_seconds: float, report: LoadReport
) -> None:
    request = storage.CreateGenerationRequest(prompt=f"creator {number}", duration_seconds=audio_seconds, seed=number)
    kept = False
    while time.monotonic() < end_at:
        created = await _call_until_accepted(stub.CreateGeneration, request, report, end_at)
        if created is None:
            return
        generation_id = created.generation.id
        if not kept:
            report.kept.append(generation_id)
            kept = True
            continue
        cancel = storage.CancelGenerationRequest(id=generation_id)
        try:
            await _call_until_accepted(stub.CancelGeneration, cancel, report, end_at + CALL_SECONDS)
            report.cancelled.append(generation_id)
        except _AlreadyEnded:
            report.kept.append(generation_id)


class _AlreadyEnded(Exception):
    """A generation was completed before it could be cancelled."""


async def _call_until_accepted(method: Any, request: Any, report: LoadReport, end_at: float) -> Any:
    """Returns the response, or None if there was none before `end_at`, or an error other than RESOURCE_EXHAUSTED.

    Raises _AlreadyEnded.
    """
    while time.monotonic() < end_at:
        started_at = time.perf_counter()
        try:
            response = await method(request, timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.FAILED_PRECONDITION:
                raise _AlreadyEnded from error
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                report.errors[f"{error.code().name} {error.details()}"] += 1
                return None
            report.refused_seconds.append(time.perf_counter() - started_at)
            details = read_error_details(error)
            report.refusals[details.reason] += 1
            if details.retry_after_seconds is None:
                report.refusals_without_retry_time += 1
            await asyncio.sleep(details.retry_after_seconds or 0.0)
        else:
            report.accepted_seconds.append(time.perf_counter() - started_at)
            return response
    return None


async def run_listeners(
    stubs: Sequence[MusicServiceAsyncStub],
    requests: Sequence[StreamAudioRequest],
    sha256: dict[str, str],
    report: LoadReport,
    seconds: float = 0.0,
) -> None:
    """Each client listens to one of the requests at the speed of the music: again and again for so many seconds, but at
    least once. `sha256` has that of the samples for each generation id; those without are checked for order and
    checksums alone."""
    end_at = time.monotonic() + seconds
    async with asyncio.TaskGroup() as group:
        for number, stub in enumerate(stubs):
            request = requests[number % len(requests)]
            group.create_task(_listen_until(end_at, stub, request, sha256.get(request.generation_id), report))


async def _listen_until(
    end_at: float, stub: MusicServiceAsyncStub, request: StreamAudioRequest, sha256: str | None, report: LoadReport
) -> None:
    while True:
        try:
            heard = await listen(stub, request, report)
        except grpc.aio.AioRpcError as error:
            report.errors[f"listener: {error.code().name} {error.details()}"] += 1
            return
        report.heard.append((request.generation_id, heard))
        if sha256 is not None and heard != sha256:
            report.errors["listener: wrong samples"] += 1
        if time.monotonic() >= end_at:
            return


async def listen(stub: MusicServiceAsyncStub, request: StreamAudioRequest, report: LoadReport) -> str:
    """Listens to the end, no faster than the music plays, and returns the SHA-256 of the samples. Raises AioRpcError,
    and DataLoss if the samples are not in order or not intact."""
    reader: PcmReader | None = None
    started_at = late = 0.0
    async for response in stub.StreamAudio(request, timeout=CALL_SECONDS):
        match response.WhichOneof("part"):
            case "header":
                reader = PcmReader(response.header)
            case "chunk":
                assert reader is not None
                played = reader.frames / reader.header.sample_rate_hz
                reader.accept(response.chunk)
                started_at = started_at or time.monotonic()
                ahead = played - (time.monotonic() - started_at)
                late = max(late, -ahead)
                if ahead > 0:
                    await asyncio.sleep(ahead)
            case "end":
                assert reader is not None
                reader.finish(response.end)
                report.audio_seconds += reader.frames / reader.header.sample_rate_hz
                report.late_seconds.append(late)
                return reader.sha256
    raise AssertionError("the stream had no end")


@asynccontextmanager
async def watched_health(channel: grpc.aio.Channel, report: LoadReport) -> AsyncIterator[None]:
    """Checks the health of the server ten times a second while the block runs, and watches it."""
    stub: Any = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest()
    name = health_pb2.HealthCheckResponse.ServingStatus.Name

    async def check() -> None:
        while True:
            started_at = time.perf_counter()
            try:
                answer = await stub.Check(request, timeout=CALL_SECONDS)
                report.health[name(answer.status)] += 1
            except grpc.aio.AioRpcError as error:
                report.health[error.code().name] += 1
            report.health_seconds.append(time.perf_counter() - started_at)
            await asyncio.sleep(HEALTH_PAUSE_SECONDS)

    async def watch() -> None:
        async for answer in stub.Watch(request):
            report.health_changes.append(name(answer.status))

    tasks = [asyncio.create_task(check()), asyncio.create_task(watch())]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def final_states(stub: MusicServiceAsyncStub, ids: Sequence[str]) -> Counter[str]:
    """Waits until each of the generations has ended, and returns how many ended in which state."""
    states: Counter[str] = Counter()
    for generation_id in ids:
        async for change in stub.WatchGeneration(storage.WatchGenerationRequest(id=generation_id), timeout=600):
            last = change.generation
        states[storage.GenerationState.Name(last.state).removeprefix("GENERATION_STATE_")] += 1
    return states


async def create_finished(stub: MusicServiceAsyncStub, seconds: float, count: int) -> list[storage.Generation]:
    """Creates generations and returns them once they are completed."""
    finished = []
    created = [
        await stub.CreateGeneration(
            storage.CreateGenerationRequest(prompt=f"finished {number}", duration_seconds=seconds, seed=number),
            timeout=CALL_SECONDS,
        )
        for number in range(count)
    ]
    for each in created:
        watch = stub.WatchGeneration(storage.WatchGenerationRequest(id=each.generation.id), timeout=CALL_SECONDS)
        async for change in watch:
            last = change.generation
        assert last.state == storage.GENERATION_STATE_COMPLETED, last.error_message
        finished.append(last)
    return finished
