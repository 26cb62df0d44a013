"""The service over gRPC, on a Unix socket."""

from __future__ import annotations

import asyncio
import math
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import grpc.aio
import psycopg
import pytest
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import Connection, event

from dgx_music.audio.v1.audio_pb2 import OutputOptions
from dgx_music.channel import connect
from dgx_music.error_status import read_error_details
from dgx_music.storage.v1 import storage_pb2 as pb
from dgx_music.storage.v1.storage_pb2 import Continuation, SamplingParameters
from dgx_music.storage.v1.storage_pb2_grpc import StorageServiceStub
from service_runtime.rpc.server import serve_services
from storage_service.config import StorageSettings
from storage_service.rpc.server import StorageServer, build

Stub: TypeAlias = "StorageServiceStub[grpc.aio.Channel]"
UNKNOWN = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
async def stub(settings: StorageSettings, tmp_path: Path) -> AsyncIterator[Any]:
    address = f"unix:{tmp_path}/s.sock"
    async with serve_services([build(settings)], [address], settings), connect(address) as channel:
        yield StorageServiceStub(channel)


def request(**changes: Any) -> pb.CreateGenerationRequest:
    fields = {
        "prompt": "a calm piano",
        "model_name": "sketch",
        "duration_seconds": 4.0,
        "sample_rate_hz": 32000,
        "channels": 2,
    }
    return pb.CreateGenerationRequest(**{**fields, **changes})


def struct(**values: Any) -> Struct:
    message = Struct()
    message.update(values)
    return message


async def create(stub: Any, **changes: Any) -> pb.Generation:
    return (await stub.CreateGeneration(request(**changes), timeout=60)).generation  # type: ignore[no-any-return]


async def claim(stub: Any, **changes: Any) -> pb.ClaimGenerationResponse:
    fields = {"worker_id": "w", "model_names": ["sketch"], "lease_seconds": 30, "wait_seconds": 0}
    return await stub.ClaimGeneration(  # type: ignore[no-any-return]
        pb.ClaimGenerationRequest(**{**fields, **changes}), timeout=40
    )


@pytest.mark.parametrize("empty_url", ["sqlite", pytest.param("postgres", marks=pytest.mark.slow)], indirect=True)
async def test_watcher_is_told_its_place_in_the_queue(stub: Any) -> None:
    first, second = [(await create(stub)).id for _ in range(2)]
    request = pb.WatchGenerationRequest(id=second, with_queue_place=True)
    watch = stub.WatchGeneration(request, timeout=60)
    assert (await watch.read()).queue_place.position == 2
    plain = await stub.WatchGeneration(pb.WatchGenerationRequest(id=second), timeout=60).read()
    assert not plain.HasField("queue_place"), "only who asks for it"
    assert (await claim(stub)).generation.id == first
    moved = await watch.read()
    assert (moved.generation.state, moved.queue_place.position) == (pb.GENERATION_STATE_PENDING, 1)
    assert (await claim(stub)).generation.id == second
    begun = await watch.read()
    assert begun.generation.state == pb.GENERATION_STATE_PROCESSING
    assert not begun.HasField("queue_place")


async def test_generation_from_create_to_complete(stub: Any) -> None:
    asked = {"seed": 7, "sampling": SamplingParameters(temperature=0.5, top_k=0), "request_id": UNKNOWN}
    made = await create(stub, metadata=struct(bpm=80.5, n=3, tags=["a"], deep={"x": None}), **asked)
    assert made.sampling == asked["sampling"]
    assert made.sampling.HasField("top_k")
    assert made.state == pb.GENERATION_STATE_PENDING
    assert not made.HasField("output")
    assert (made.seed, made.attempt, made.max_attempts, made.request_id) == (7, 0, 3, UNKNOWN)
    assert not made.HasField("started_at")
    assert not made.HasField("completed_at")
    watch = stub.WatchGeneration(pb.WatchGenerationRequest(id=made.id), timeout=60)
    assert (await watch.read()).generation == made

    claimed = await claim(stub)
    assert claimed.generation.state == pb.GENERATION_STATE_PROCESSING
    assert claimed.generation.stage == pb.GENERATION_STAGE_QUEUED
    assert claimed.HasField("lease_expires_at")
    assert (await watch.read()).generation == claimed.generation

    renewed = await stub.RenewLease(
        pb.RenewLeaseRequest(
            id=made.id,
            lease_token=claimed.lease_token,
            lease_seconds=60,
            stage=pb.GENERATION_STAGE_GENERATING,
            progress=0.5,
        ),
        timeout=60,
    )
    assert not renewed.cancelled
    assert renewed.lease_expires_at.ToNanoseconds() > claimed.lease_expires_at.ToNanoseconds()
    seen = (await watch.read()).generation
    assert (seen.stage, seen.progress) == (pb.GENERATION_STAGE_GENERATING, 0.5)

    done = pb.CompleteGenerationRequest(
        id=made.id,
        lease_token=claimed.lease_token,
        file_path="2026/01/01/a.wav",
        file_size_bytes=1000,
        generation_time_seconds=1.5,
        model_version="1",
        metadata=struct(bpm=81),
    )
    completed = (await stub.CompleteGeneration(done, timeout=60)).generation
    assert completed.state == pb.GENERATION_STATE_COMPLETED
    assert dict(completed.metadata)["bpm"] == 81
    assert dict(completed.metadata)["n"] == 3
    assert completed.metadata["deep"]["x"] is None  # type: ignore[index,call-overload]
    assert (completed.file_path, completed.file_size_bytes, completed.model_version) == ("2026/01/01/a.wav", 1000, "1")
    assert (await watch.read()).generation == completed
    assert await watch.read() == grpc.aio.EOF
    assert (await stub.CompleteGeneration(done, timeout=60)).generation == completed
    assert (await create(stub, metadata=made.metadata, **asked)) == completed
    assert (await stub.GetGeneration(pb.GetGenerationRequest(id=made.id), timeout=60)).generation == completed


@pytest.mark.parametrize(
    "output",
    [
        {"format": "FILE_FORMAT_MP3", "sample_rate_hz": 44_100, "channels": 1, "profile": "LOUDNESS_PROFILE_STREAMING"},
        {"format": "FILE_FORMAT_WAV_PCM_24", "target_lufs": -20.5, "ceiling_dbtp": -2.0},
        {"format": "FILE_FORMAT_WAV_PCM_24", "profile": "LOUDNESS_PROFILE_NONE"},
    ],
)
async def test_output_options_reach_worker(stub: Any, output: dict[str, Any]) -> None:
    asked = OutputOptions(**output)
    assert (await create(stub, output=asked)).output == asked
    assert (await claim(stub)).generation.output == asked


async def test_empty_sampling_is_unset_and_nan_rejected(stub: Any) -> None:
    assert not (await create(stub)).HasField("sampling")
    assert not (await create(stub, sampling=SamplingParameters())).HasField("sampling")
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await create(stub, sampling=SamplingParameters(top_p=float("nan")))
    assert list(read_error_details(raised.value).violations) == ["sampling.top_p"]


async def test_continuation_reaches_worker(stub: Any) -> None:
    assert not (await create(stub)).HasField("continuation")
    made = await create(stub, model_name="next", continuation=Continuation(source_id=UNKNOWN))
    assert made.continuation == Continuation(source_id=UNKNOWN, seconds=10.0)
    assert (await claim(stub, model_names=["next"])).generation.continuation == made.continuation
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await create(stub, continuation=Continuation())
    assert list(read_error_details(raised.value).violations) == ["continuation.source_id"]


@pytest.mark.parametrize("empty_url", ["sqlite", pytest.param("postgres", marks=pytest.mark.slow)], indirect=True)
async def test_fail_retry_cancel_and_delete(stub: Any) -> None:
    made = await create(stub)
    claimed = await claim(stub)
    failure = pb.FailGenerationRequest(id=made.id, lease_token=claimed.lease_token, error_message="it broke")
    failed = (await stub.FailGeneration(failure, timeout=60)).generation
    assert (failed.state, failed.error_message) == (pb.GENERATION_STATE_FAILED, "it broke")
    retried = (await stub.RetryGeneration(pb.RetryGenerationRequest(id=made.id), timeout=60)).generation
    assert (retried.state, retried.attempt, retried.max_attempts) == (pb.GENERATION_STATE_PENDING, 1, 4)
    claimed = await claim(stub)
    failure = pb.FailGenerationRequest(
        id=made.id, lease_token=claimed.lease_token, error_message="it broke", retryable=True
    )
    failed = (await stub.FailGeneration(failure, timeout=60)).generation
    assert failed.state == pb.GENERATION_STATE_PENDING
    assert failed.HasField("not_before")
    claimed = await claim(stub, wait_seconds=10)
    assert claimed.generation.attempt == 3
    cancelled = (await stub.CancelGeneration(pb.CancelGenerationRequest(id=made.id), timeout=60)).generation
    assert cancelled.state == pb.GENERATION_STATE_CANCELLED
    renewal = pb.RenewLeaseRequest(id=made.id, lease_token=claimed.lease_token, lease_seconds=30)
    renewed = await stub.RenewLease(renewal, timeout=60)
    assert renewed.cancelled
    assert not renewed.HasField("lease_expires_at")
    await stub.DeleteGeneration(pb.DeleteGenerationRequest(id=made.id), timeout=60)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.GetGeneration(pb.GetGenerationRequest(id=made.id), timeout=60)
    assert read_error_details(raised.value).reason == "GENERATION_NOT_FOUND"


async def test_lists_prompts_and_statistics(stub: Any) -> None:
    made = [await create(stub, prompt=text) for text in ("a", "b", "b")]
    listed = await stub.ListGenerations(pb.ListGenerationsRequest(page_size=2), timeout=60)
    assert list(listed.generations) == [made[2], made[1]]
    rest = await stub.ListGenerations(
        pb.ListGenerationsRequest(page_size=2, page_token=listed.next_page_token), timeout=10
    )
    assert list(rest.generations) == [made[0]]
    assert rest.next_page_token == ""
    narrowed = pb.ListGenerationsRequest(
        states=[pb.GENERATION_STATE_PENDING],
        model_name="sketch",
        prompt_contains="B",
        created_after=made[1].created_at,
        created_before=made[2].created_at,
    )
    assert list((await stub.ListGenerations(narrowed, timeout=60)).generations) == [made[1]]
    prompt = (await stub.GetPrompt(pb.GetPromptRequest(text="b"), timeout=60)).prompt
    assert (prompt.text, prompt.used_count) == ("b", 2)
    used = (await stub.ListPrompts(pb.ListPromptsRequest(), timeout=60)).prompts
    assert [row.text for row in used] == ["b", "a"]
    await create(stub, prompt="a")
    recent = pb.ListPromptsRequest(order=pb.PROMPT_ORDER_MOST_RECENT, page_size=1)
    assert [row.text for row in (await stub.ListPrompts(recent, timeout=60)).prompts] == ["a"]
    figures = await stub.GetStatistics(pb.GetStatisticsRequest(), timeout=60)
    assert (figures.total_generations, figures.pending_generations, figures.total_prompts) == (4, 4, 2)
    assert figures.oldest_pending_seconds > 0
    assert [(model.model_name, model.pending_generations) for model in figures.models] == [("sketch", 4)]
    assert len(figures.days) == 7
    assert len((await stub.GetStatistics(pb.GetStatisticsRequest(days=2), timeout=60)).days) == 2


async def test_statistics_by_model_and_day(stub: Any) -> None:
    for seconds in (1.0, 2.0, 4.0):
        made = await create(stub, model_name="tune")
        claimed = await claim(stub, model_names=["tune"])
        done = pb.CompleteGenerationRequest(
            id=made.id,
            lease_token=claimed.lease_token,
            file_path="a.wav",
            file_size_bytes=10,
            generation_time_seconds=seconds,
        )
        await stub.CompleteGeneration(done, timeout=60)
    figures = await stub.GetStatistics(pb.GetStatisticsRequest(), timeout=60)
    percentiles = pb.GenerationTimePercentiles(p50_seconds=2, p90_seconds=4, p99_seconds=4)
    assert figures.generation_time_percentiles == percentiles
    [model] = figures.models
    assert model == pb.ModelStatistics(
        model_name="tune",
        completed_generations=3,
        completed_audio_seconds=12,
        completed_file_bytes=30,
        mean_generation_time_seconds=7 / 3,
        generation_time_percentiles=percentiles,
    )
    assert figures.days[0] == pb.DayStatistics(
        date=figures.days[0].date, completed_generations=3, completed_audio_seconds=12, completed_file_bytes=30
    )
    assert figures.days[0].date > figures.days[1].date


async def test_batch_is_claimed_by_priority(stub: Any) -> None:
    requests = [request(prompt=f"{priority}", priority=priority, max_attempts=2) for priority in (-1, 5, 0)]
    batch = pb.BatchCreateGenerationsRequest(requests=requests)
    made = (await stub.BatchCreateGenerations(batch, timeout=60)).generations
    assert [(row.prompt, row.priority, row.max_attempts) for row in made] == [("-1", -1, 2), ("5", 5, 2), ("0", 0, 2)]
    assert [(await claim(stub)).generation.prompt for _ in range(3)] == ["5", "0", "-1"]


async def test_concurrent_equal_batches_create_one(stub: Any) -> None:
    requests = [request(prompt=f"{n}", request_id=str(uuid.uuid4())) for n in range(4)]
    batch = pb.BatchCreateGenerationsRequest(requests=requests)
    answers = await asyncio.gather(*(stub.BatchCreateGenerations(batch, timeout=60) for _ in range(50)))
    assert len({tuple(row.id for row in answer.generations) for answer in answers}) == 1
    figures = await stub.GetStatistics(pb.GetStatisticsRequest(), timeout=60)
    assert (figures.total_generations, figures.total_prompts) == (4, 4)


async def test_update_metadata_notifies_watcher(stub: Any) -> None:
    made = await create(stub, metadata=struct(a=1, deep={"b": 2, "c": 3}))
    watch = stub.WatchGeneration(pb.WatchGenerationRequest(id=made.id), timeout=60)
    await watch.read()
    patch = pb.UpdateMetadataRequest(id=made.id, metadata=struct(a=None, deep={"b": None}, d=[1]))
    updated = (await stub.UpdateMetadata(patch, timeout=60)).generation
    made.metadata.Clear()
    made.metadata.update({"deep": {"c": 3}, "d": [1]})
    assert updated == made
    assert (await watch.read()).generation == made


async def test_rating_notifies_watcher_and_filters_list(stub: Any) -> None:
    made, other = await create(stub), await create(stub)
    watch = stub.WatchGeneration(pb.WatchGenerationRequest(id=made.id), timeout=60)
    await watch.read()
    rated = (await stub.RateGeneration(pb.RateGenerationRequest(id=made.id, rating=4), timeout=60)).generation
    made.rating = 4
    assert rated == made
    assert (await watch.read()).generation == made
    watch.cancel()
    for min_rating, expected in ((0, [other.id, made.id]), (4, [made.id]), (5, [])):
        listed = await stub.ListGenerations(pb.ListGenerationsRequest(min_rating=min_rating), timeout=60)
        assert [row.id for row in listed.generations] == expected
    removed = await stub.RateGeneration(pb.RateGenerationRequest(id=made.id), timeout=60)
    assert removed.generation.rating == 0


async def test_comparisons_are_saved_listed_and_end_with_their_generations(stub: Any) -> None:
    takes = []
    for _ in range(3):
        await create(stub)
        claimed = await claim(stub)
        report = pb.CompleteGenerationRequest(
            id=claimed.generation.id,
            lease_token=claimed.lease_token,
            file_path="a.wav",
            file_size_bytes=10,
            generation_time_seconds=1.0,
        )
        takes.append((await stub.CompleteGeneration(report, timeout=60)).generation.id)
    ranking = pb.CreateComparisonRequest(generation_ids=takes, blind=True, request_id=UNKNOWN)
    saved = (await stub.CreateComparison(ranking, timeout=60)).comparison
    assert (list(saved.generation_ids), saved.blind) == (takes, True)
    assert saved.create_time.seconds > 0
    assert (await stub.CreateComparison(ranking, timeout=60)).comparison == saved
    pair = pb.CreateComparisonRequest(generation_ids=takes[:2])
    other = (await stub.CreateComparison(pair, timeout=60)).comparison
    first = await stub.ListComparisons(pb.ListComparisonsRequest(page_size=1), timeout=60)
    assert list(first.comparisons) == [other]
    rest = await stub.ListComparisons(pb.ListComparisonsRequest(page_token=first.next_page_token), timeout=60)
    assert (list(rest.comparisons), rest.next_page_token) == ([saved], "")
    for deleted, left in ((takes[0], [[takes[1], takes[2]]]), (takes[2], [])):
        await stub.DeleteGeneration(pb.DeleteGenerationRequest(id=deleted), timeout=60)
        listed = await stub.ListComparisons(pb.ListComparisonsRequest(generation_id=takes[1]), timeout=60)
        assert [list(one.generation_ids) for one in listed.comparisons] == left


async def test_update_file_keeps_statistics_right(stub: Any) -> None:
    made = await create(stub)
    update = pb.UpdateFileRequest(id=made.id, file_size_bytes=12, file_sha256="0f" * 32)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.UpdateFile(update, timeout=60)
    assert read_error_details(raised.value).reason == "ILLEGAL_TRANSITION"
    claimed = await claim(stub)
    done = pb.CompleteGenerationRequest(
        id=made.id,
        lease_token=claimed.lease_token,
        file_path="a.wav",
        file_size_bytes=10,
        generation_time_seconds=1.0,
        metadata=struct(bpm=84, file_sha256="00" * 32),
    )
    completed = (await stub.CompleteGeneration(done, timeout=60)).generation
    updated = (await stub.UpdateFile(update, timeout=60)).generation
    completed.file_size_bytes = 12
    completed.metadata.update({"file_sha256": "0f" * 32})
    assert updated == completed
    figures = await stub.GetStatistics(pb.GetStatisticsRequest(), timeout=60)
    assert figures.completed_file_bytes == figures.models[0].completed_file_bytes == 12
    assert figures.days[0].completed_file_bytes == 12


async def test_create_answers_waiting_claim(stub: Any) -> None:
    waiting = asyncio.create_task(claim(stub, wait_seconds=30))
    made = await create(stub)
    assert (await waiting).generation.id == made.id
    assert not (await claim(stub)).HasField("generation")


async def test_concurrent_creates_with_one_request_id_create_one(stub: Any) -> None:
    request_id = str(uuid.uuid4())
    made = await asyncio.gather(*(create(stub, request_id=request_id) for _ in range(50)))
    assert len({row.id for row in made}) == 1
    figures = await stub.GetStatistics(pb.GetStatisticsRequest(), timeout=60)
    assert figures.total_generations == 1
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await create(stub, request_id=request_id, seed=1)
    assert set(read_error_details(raised.value).violations) == {"request_id"}


INVALID_REQUESTS: list[tuple[str, Any, str, str | None]] = [
    (
        "DeleteGeneration",
        pb.DeleteGenerationRequest(id=UNKNOWN, state=pb.GENERATION_STATE_PROCESSING),
        "INVALID_ARGUMENT",
        "state",
    ),
    ("CreateGeneration", request(prompt=""), "INVALID_ARGUMENT", "prompt"),
    ("CreateGeneration", request(prompt="x" * 100_000), "INVALID_ARGUMENT", "prompt"),
    ("CreateGeneration", request(prompt="\0"), "INVALID_ARGUMENT", "prompt"),
    ("CreateGeneration", request(duration_seconds=float("nan")), "INVALID_ARGUMENT", "duration_seconds"),
    ("CreateGeneration", request(duration_seconds=1e9), "INVALID_ARGUMENT", "duration_seconds"),
    ("CreateGeneration", request(sample_rate_hz=0), "INVALID_ARGUMENT", "sample_rate_hz"),
    *(
        ("CreateGeneration", request(output=output), "INVALID_ARGUMENT", f"output.{field}")
        for field, output in (
            ("sample_rate_hz", {"sample_rate_hz": 7_999}),
            ("sample_rate_hz", {"format": "FILE_FORMAT_OGG_OPUS", "sample_rate_hz": 44_100}),
            ("sample_rate_hz", {"format": "FILE_FORMAT_MP3", "sample_rate_hz": 96_000}),
            ("channels", {"channels": 9}),
            ("channels", {"channels": -1}),
            ("profile", {"profile": 9}),
            ("target_lufs", {"target_lufs": 1.0}),
            ("target_lufs", {"target_lufs": math.nan}),
            ("ceiling_dbtp", {"ceiling_dbtp": 0.1}),
            ("ceiling_dbtp", {"ceiling_dbtp": -21.0}),
        )
    ),
    ("CreateGeneration", request(output={"format": 99}), "INVALID_ARGUMENT", "output.format"),
    ("CreateGeneration", request(metadata=struct(x=float("inf"))), "INVALID_ARGUMENT", "metadata"),
    ("CreateGeneration", request(priority=11), "INVALID_ARGUMENT", "priority"),
    ("CreateGeneration", request(max_attempts=-1), "INVALID_ARGUMENT", "max_attempts"),
    ("BatchCreateGenerations", pb.BatchCreateGenerationsRequest(), "INVALID_ARGUMENT", "requests"),
    (
        "BatchCreateGenerations",
        pb.BatchCreateGenerationsRequest(requests=[request(), request(prompt="")]),
        "INVALID_ARGUMENT",
        "requests[1].prompt",
    ),
    (
        "BatchCreateGenerations",
        pb.BatchCreateGenerationsRequest(requests=[request(output={"format": 99})]),
        "INVALID_ARGUMENT",
        "requests[0].output.format",
    ),
    ("UpdateMetadata", pb.UpdateMetadataRequest(id=UNKNOWN), "NOT_FOUND", None),
    ("UpdateMetadata", pb.UpdateMetadataRequest(id="x"), "INVALID_ARGUMENT", "id"),
    ("RateGeneration", pb.RateGenerationRequest(id=UNKNOWN, rating=6), "INVALID_ARGUMENT", "rating"),
    ("RateGeneration", pb.RateGenerationRequest(id=UNKNOWN, rating=5), "NOT_FOUND", None),
    ("CreateComparison", pb.CreateComparisonRequest(generation_ids=[UNKNOWN]), "INVALID_ARGUMENT", "generation_ids"),
    (
        "CreateComparison",
        pb.CreateComparisonRequest(generation_ids=[UNKNOWN, "x"]),
        "INVALID_ARGUMENT",
        "generation_ids[1]",
    ),
    ("CreateComparison", pb.CreateComparisonRequest(generation_ids=[UNKNOWN, "f" + UNKNOWN[1:]]), "NOT_FOUND", None),
    ("ListComparisons", pb.ListComparisonsRequest(generation_id="x"), "INVALID_ARGUMENT", "generation_id"),
    ("UpdateFile", pb.UpdateFileRequest(id=UNKNOWN, file_size_bytes=1), "INVALID_ARGUMENT", "file_sha256"),
    ("UpdateFile", pb.UpdateFileRequest(id=UNKNOWN, file_sha256="0" * 64), "INVALID_ARGUMENT", "file_size_bytes"),
    ("ListGenerations", pb.ListGenerationsRequest(min_rating=6), "INVALID_ARGUMENT", "min_rating"),
    ("ListGenerations", pb.ListGenerationsRequest(min_bpm=9, max_bpm=8), "INVALID_ARGUMENT", "max_bpm"),
    ("ListGenerations", pb.ListGenerationsRequest(key="H"), "INVALID_ARGUMENT", "key"),
    ("GetStatistics", pb.GetStatisticsRequest(days=367), "INVALID_ARGUMENT", "days"),
    ("GetGeneration", pb.GetGenerationRequest(id="x"), "INVALID_ARGUMENT", "id"),
    ("GetGeneration", pb.GetGenerationRequest(id=UNKNOWN), "NOT_FOUND", None),
    ("CancelGeneration", pb.CancelGenerationRequest(id=UNKNOWN), "NOT_FOUND", None),
    ("ListGenerations", pb.ListGenerationsRequest(page_token="x"), "INVALID_ARGUMENT", "page_token"),
    ("ListGenerations", pb.ListGenerationsRequest(page_size=-1), "INVALID_ARGUMENT", "page_size"),
    ("ListGenerations", pb.ListGenerationsRequest(states=[1, 0]), "INVALID_ARGUMENT", "states[1]"),
    (
        "ListGenerations",
        pb.ListGenerationsRequest(created_after=Timestamp(seconds=10**15)),
        "INVALID_ARGUMENT",
        "created_after",
    ),
    (
        "RenewLease",
        pb.RenewLeaseRequest(id=UNKNOWN, lease_token="t", lease_seconds=30, stage=99),  # type: ignore[arg-type]
        "INVALID_ARGUMENT",
        "stage",
    ),
    ("ListPrompts", pb.ListPromptsRequest(order=99), "INVALID_ARGUMENT", "order"),  # type: ignore[arg-type]
    ("GetPrompt", pb.GetPromptRequest(text=""), "INVALID_ARGUMENT", "text"),
    ("GetPrompt", pb.GetPromptRequest(text="ü" * 10_000), "NOT_FOUND", None),
]
"""Method, request, expected status code and the field that the error names."""


@pytest.mark.parametrize("empty_url", ["sqlite"], indirect=True)
async def test_invalid_requests_have_code_and_field(stub: Any) -> None:
    for method, message, code, field in INVALID_REQUESTS:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await getattr(stub, method)(message, timeout=60)
        failure = read_error_details(raised.value)
        assert (failure.code.name, list(failure.violations)) == (code, [field] if field else []), (method, message)


async def test_drain_ends_watches_and_claims(
    settings: StorageSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, server, waits = f"unix:{tmp_path}/d.sock", StorageServer(settings), asyncio.Event()
    subscribe_to_work = server._store.notifier.subscribe_to_work

    def seen(model_names: Sequence[str]) -> AbstractContextManager[asyncio.Event]:
        waits.set()
        return subscribe_to_work(model_names)

    monkeypatch.setattr(server._store.notifier, "subscribe_to_work", seen)
    async with connect(address) as channel:
        stub: Any = StorageServiceStub(channel)
        async with serve_services([server], [address], settings):
            made = await create(stub, model_name="other")
            watch = stub.WatchGeneration(pb.WatchGenerationRequest(id=made.id), timeout=60)
            await watch.read()
            waiting = asyncio.create_task(claim(stub, wait_seconds=30))
            await waits.wait()
        assert not (await waiting).HasField("generation")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await watch.read()
    assert read_error_details(raised.value).reason == "SHUTTING_DOWN"


@pytest.mark.parametrize("empty_url", ["postgres"], indirect=True)
async def test_stop_during_blocked_calls_closes_all_connections(
    settings: StorageSettings, tmp_path: Path, url: str
) -> None:
    address, stop, blocked = f"unix:{tmp_path}/b.sock", asyncio.Event(), asyncio.Queue[psycopg.Connection[Any]]()
    server, loop = StorageServer(settings), asyncio.get_running_loop()

    def see(connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        if "FROM generations" in statement:
            loop.call_soon_threadsafe(blocked.put_nowait, connection.connection.dbapi_connection)

    async def serve() -> None:
        async with serve_services([server], [address], settings.model_copy(update={"grace_seconds": 0.0})):
            await stop.wait()

    async with asyncio.TaskGroup() as tasks, connect(address) as channel:
        stub: Any = StorageServiceStub(channel)
        with psycopg.connect(url) as holder:
            serving = tasks.create_task(serve())
            await stub.ListGenerations(pb.ListGenerationsRequest(), timeout=60, wait_for_ready=True)
            holder.execute("LOCK TABLE generations IN ACCESS EXCLUSIVE MODE")
            event.listen(server._store._database.engine, "before_cursor_execute", see)
            calls = [stub.ListGenerations(pb.ListGenerationsRequest(), timeout=60) for _ in range(3)]
            used = [await blocked.get() for _ in calls]
            stop.set()
            for call in calls:
                with pytest.raises(grpc.aio.AioRpcError):
                    await call
            assert not any(connection.closed for connection in used)
            assert not serving.done()
    assert all(connection.closed for connection in used)
