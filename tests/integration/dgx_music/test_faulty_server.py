"""The client against a gateway that fails as the test says: what it repeats, what it resumes, and what it refuses."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import grpc.aio
import pytest
from grpc_status import rpc_status

from dgx_music import AsyncClient
from dgx_music.audio.v1.audio_pb2 import AudioChunk
from dgx_music.error_status import to_status
from dgx_music.errors import (
    Aborted,
    DataLoss,
    DeadlineExceeded,
    GenerationFailed,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    ServiceError,
    Unavailable,
)
from dgx_music.export.v1.export_pb2 import DownloadRequest, DownloadResponse, StreamAudioRequest, StreamAudioResponse
from dgx_music.gateway.v1 import gateway_pb2_grpc
from dgx_music.generation.v1.generation_pb2 import ListModelsResponse
from dgx_music.pcm import PcmWriter, live_header
from dgx_music.storage.v1 import storage_pb2 as pb

ID = "3f0e4a52-6f5e-4e40-9a58-1f6d0a5b7c11"
FRAMES = 20_000
PCM = bytes(range(256)) * (FRAMES * 8 // 256)
UNAVAILABLE = Unavailable("storage does not answer", reason="SERVICE_UNAVAILABLE")


class FaultyGateway(gateway_pb2_grpc.MusicServiceServicer):
    """Keeps the requests, and does for each what the next of `script` says: raises it, or calls it."""

    def __init__(self) -> None:
        self.script: list[ServiceError | Callable[[Any], Any]] = []
        self.requests: list[Any] = []

    async def _next(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        step = self.script.pop(0)
        if isinstance(step, ServiceError):
            await context.abort_with_status(rpc_status.to_status(to_status(step)))
        return step(request)  # type: ignore[operator]

    async def CreateGeneration(self, request: Any, context: Any) -> pb.CreateGenerationResponse:
        return await self._next(request, context)

    async def CancelGeneration(self, request: Any, context: Any) -> pb.CancelGenerationResponse:
        return await self._next(request, context)

    async def GetGeneration(self, request: Any, context: Any) -> pb.GetGenerationResponse:
        return await self._next(request, context)

    async def ListModels(self, request: Any, context: Any) -> ListModelsResponse:
        await asyncio.sleep(3600)
        raise AssertionError

    async def WatchGeneration(self, request: Any, context: Any) -> AsyncIterator[pb.WatchGenerationResponse]:
        for response in await self._next(request, context):
            yield pb.WatchGenerationResponse(generation=pb.Generation(id=ID, state=response))

    async def StreamAudio(self, request: Any, context: Any) -> AsyncIterator[StreamAudioResponse]:
        for response in await self._next(request, context):
            if isinstance(response, ServiceError):
                await context.abort_with_status(rpc_status.to_status(to_status(response)))
            yield response

    async def Download(self, request: Any, context: Any) -> AsyncIterator[DownloadResponse]:
        for response in await self._next(request, context):
            if isinstance(response, ServiceError):
                await context.abort_with_status(rpc_status.to_status(to_status(response)))
            yield response


@pytest.fixture
def gateway() -> FaultyGateway:
    return FaultyGateway()


@pytest.fixture
async def client(gateway: FaultyGateway) -> AsyncIterator[AsyncClient]:
    server = grpc.aio.server()
    gateway_pb2_grpc.add_MusicServiceServicer_to_server(gateway, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with AsyncClient(f"127.0.0.1:{port}", reconnect_timeout=0.5) as client:
        yield client
    await server.stop(None)


def created(request: pb.CreateGenerationRequest) -> pb.CreateGenerationResponse:
    return pb.CreateGenerationResponse(generation=pb.Generation(id=ID, prompt=request.prompt))


def audio(request: StreamAudioRequest, change: Callable[[list[AudioChunk]], None] = lambda chunks: None) -> list[Any]:
    """The responses from the requested frame on, with changed chunks."""
    writer = PcmWriter(2, request.start_frame)
    chunks = list(writer.chunks(PCM[request.start_frame * 8 :]))
    change(chunks)
    return [
        StreamAudioResponse(header=live_header(ID, 1, 32_000, 2, FRAMES)),
        *(StreamAudioResponse(chunk=chunk) for chunk in chunks),
        StreamAudioResponse(end=writer.end()),
    ]


async def received(client: AsyncClient) -> bytes:
    """All samples of the stream of a generation of which only the audio is known."""
    return b"".join([chunk.pcm async for chunk in client._wrap(pb.Generation(id=ID)).stream()])


async def test_creation_is_repeated_with_the_same_request_id(gateway: FaultyGateway, client: AsyncClient) -> None:
    gateway.script = [UNAVAILABLE, UNAVAILABLE, created]
    assert (await client.submit("a")).id == ID
    assert len({request.request_id for request in gateway.requests}) == 1
    assert len(gateway.requests) == 3
    gateway.script = [UNAVAILABLE] * 4
    with pytest.raises(Unavailable) as caught:
        await client.submit("a")
    assert (caught.value.reason, caught.value.message) == ("SERVICE_UNAVAILABLE", "storage does not answer")


async def test_what_is_not_safe_to_repeat_is_not_repeated(gateway: FaultyGateway, client: AsyncClient) -> None:
    gateway.script = [UNAVAILABLE]
    with pytest.raises(Unavailable):
        await client.cancel(ID)
    gateway.script = [Aborted("superseded", reason="LEASE_LOST")]
    with pytest.raises(Aborted):
        await client.submit("a")
    assert len(gateway.requests) == 2


async def test_call_without_an_answer_ends_at_its_deadline(gateway: FaultyGateway, client: AsyncClient) -> None:
    client._connection.timeout = 0.1
    with pytest.raises(DeadlineExceeded):
        await client.models()


async def test_busy_server_is_not_waited_for_longer_than_asked(gateway: FaultyGateway, client: AsyncClient) -> None:
    busy = ResourceExhausted("100 jobs wait", reason="QUEUE_FULL", retry_after_seconds=0.2)
    client._connection._wait_if_busy = 0.5
    gateway.script = [busy, busy, created]
    assert (await client.submit("a")).id == ID
    gateway.script = [busy, busy, busy]
    with pytest.raises(ResourceExhausted):
        await client.submit("a")
    client._connection._wait_if_busy = 0
    gateway.script = [busy]
    with pytest.raises(ResourceExhausted) as caught:
        await client.submit("a")
    assert caught.value.retry_after_seconds == 0.2


async def test_watch_goes_on_after_each_interruption(gateway: FaultyGateway, client: AsyncClient) -> None:
    pending, processing, completed = (
        pb.GENERATION_STATE_PENDING,
        pb.GENERATION_STATE_PROCESSING,
        pb.GENERATION_STATE_COMPLETED,
    )
    busy = ResourceExhausted("busy", reason="OVERLOADED", retry_after_seconds=0.1)
    gateway.script = [created, UNAVAILABLE, busy, lambda _: [pending, processing, completed]]
    states: list[str] = []
    await client.generate("a", on_progress=lambda generation: states.append(generation.state))
    assert states == ["pending", "processing", "completed"]
    gateway.script = [created, lambda _: [pb.GENERATION_STATE_FAILED]]
    with pytest.raises(GenerationFailed) as caught:
        await client.generate("a")
    assert caught.value.metadata["id"] == ID
    gateway.script = [created, lambda _: [pending]]
    with pytest.raises(NotFound, match="it was deleted"):
        await client.generate("a")


async def test_server_that_stays_away_is_given_up(gateway: FaultyGateway, client: AsyncClient) -> None:
    gateway.script = [created, *[UNAVAILABLE] * 100]
    with pytest.raises(Unavailable):
        await client.generate("a")
    assert 2 < len(gateway.requests) < 30


async def test_timeout_ends_the_waiting_for_a_lost_server(gateway: FaultyGateway, client: AsyncClient) -> None:
    later = Unavailable("restarting", reason="DRAINING", retry_after_seconds=0.3)
    gateway.script = [created, later, later, later]
    with pytest.raises(DeadlineExceeded, match="is still"):
        await client.generate("a", timeout=0.2)


async def test_stream_is_resumed_at_the_next_frame(gateway: FaultyGateway, client: AsyncClient) -> None:
    def breaks_off(error: ServiceError) -> Callable[[StreamAudioRequest], list[Any]]:
        return lambda request: [*audio(request)[:2], error]

    gateway.script = [
        UNAVAILABLE,
        breaks_off(UNAVAILABLE),
        breaks_off(Aborted("attempt 1 was aborted", reason="ATTEMPT_BROKE_OFF")),
        audio,
    ]
    assert await received(client) == PCM
    assert [request.start_frame for request in gateway.requests] == [0, 0, 8192, 16_384]
    assert [request.level for request in gateway.requests] == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("change", "intact"),
    [
        (lambda chunks: setattr(chunks[1], "crc32c", 1), 1),
        (lambda chunks: chunks.pop(1), 1),
        (lambda chunks: chunks.insert(1, chunks[0]), 1),
        (lambda chunks: chunks.pop(), 2),
        (lambda chunks: [setattr(chunk, "start_frame", chunk.start_frame + 8) for chunk in chunks], 0),
    ],
    ids=["checksum", "gap", "repeat", "short", "shifted"],
)
async def test_corrupt_stream_is_refused_at_the_first_wrong_chunk(
    gateway: FaultyGateway, client: AsyncClient, change: Callable[[list[AudioChunk]], None], intact: int
) -> None:
    gateway.script = [lambda request: audio(request, change)]
    stream = client._wrap(pb.Generation(id=ID)).stream()
    for number in range(intact):
        assert (await anext(stream)).start_frame == number * 8192
    with pytest.raises(DataLoss):
        await anext(stream)


async def test_stream_that_just_ends_or_changes_is_refused(gateway: FaultyGateway, client: AsyncClient) -> None:
    mono = StreamAudioResponse(header=live_header(ID, 1, 32_000, 1, FRAMES))
    for responses, text in (
        (lambda request: audio(request)[:-1], "no end"),
        (lambda request: audio(request)[1:], "no header"),
        (lambda request: [audio(request)[0], mono], "have changed"),
    ):
        gateway.script = [responses]
        with pytest.raises(DataLoss, match=text):
            await received(client)


async def test_download_is_resumed_at_the_next_byte(gateway: FaultyGateway, client: AsyncClient, tmp_path: Any) -> None:
    def send(request: DownloadRequest) -> Iterable[Any]:
        yield DownloadResponse(file_name=f"{ID}.wav", file_size_bytes=10, data=b"0123456789"[request.start_byte :][:4])
        yield UNAVAILABLE if request.start_byte < 8 else DownloadResponse()

    missing = NotFound("generation", ID)
    gateway.script = [missing, send, send, send]
    assert (await client.download(ID, tmp_path)).read_bytes() == b"0123456789"
    gateway.script = [missing, lambda _: [DownloadResponse(file_name="b.wav", file_size_bytes=10, data=b"0123")]]
    with pytest.raises(DataLoss, match="received 4 of 10 bytes"):
        await client.download(ID, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"{ID}.wav"]


async def test_manifest_is_saved_beside_the_file(gateway: FaultyGateway, client: AsyncClient, tmp_path: Any) -> None:
    def send(request: DownloadRequest) -> Iterable[Any]:
        data = b"signed" if request.manifest else b"music"
        yield DownloadResponse(file_name=f"{ID}.w64", file_size_bytes=len(data), data=data)

    generation = pb.Generation(id=ID, state=pb.GENERATION_STATE_COMPLETED)
    generation.metadata.update({"manifest_path": "a.c2pa", "file_sha256": hashlib.sha256(b"music").hexdigest()})
    gateway.script = [lambda _: pb.GetGenerationResponse(generation=generation), send, send]
    saved = await client.download(ID, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        f"{ID}.w64": b"music",
        f"{ID}.c2pa": b"signed",
    }
    assert saved == tmp_path / f"{ID}.w64"


async def test_error_of_the_server_keeps_its_details(gateway: FaultyGateway, client: AsyncClient) -> None:
    gateway.script = [InvalidArgument("sampling.top_k", "must be 0 to 2048, not 9999", reason="OUT_OF_BOUNDS")]
    with pytest.raises(InvalidArgument) as caught:
        await client.submit("a", top_k=9999)
    assert (caught.value.field, caught.value.reason) == ("top_k", "OUT_OF_BOUNDS")
    assert str(caught.value) == "top_k: must be 0 to 2048, not 9999"
    assert isinstance(caught.value.__cause__, grpc.aio.AioRpcError)
    gateway.script = [lambda request: 1 / 0]
    with pytest.raises(ServiceError, match="failed without giving a reason") as unexpected:
        await client.get(ID)
    assert type(unexpected.value) is ServiceError
