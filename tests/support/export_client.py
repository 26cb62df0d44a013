"""The export service on a data directory of its own, and a client that sends, listens and checks what comes."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from dgx_music.audio.v1.audio_pb2 import OutputOptions
from dgx_music.channel import connect
from dgx_music.export.v1 import export_pb2, export_pb2_grpc
from dgx_music.pcm import PcmReader, PcmWriter, live_header
from export_service.config import ExportSettings
from export_service.rpc.server import build
from service_runtime.rpc.server import serve_services

RATE = 32_000
TIMEOUT = 60.0
TAGS = export_pb2.Tags(model_name="sketch", model_version="1", genre="house", bpm=124, key="C minor", license="CC0")
Request = export_pb2.ExportRequest


def music(seconds: float, channels: int = 2, seed: int = 1, level: float = 1.0) -> np.ndarray:
    """[frames, channels]: a chord that swells, and hits."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    chord = sum(np.sin(2 * np.pi * f * time) for f in (110.0, 220.0, 277.2)) * 0.1 * (1.1 + np.sin(time))
    hits = random.standard_normal((len(time), channels)) * 0.05 * np.exp(-(time % 0.5) * 25)[:, None]
    return ((chord[:, None] + hits) * level).astype(np.float32)


def new_id() -> str:
    return str(uuid.uuid4())


def header(generation_id, samples, *, attempt=1, expected=None, output=None, tags=TAGS, **changes):
    frames = len(samples) if expected is None else expected
    audio = live_header(generation_id, attempt, RATE, samples.shape[1], frames)
    for name, value in changes.items():
        setattr(audio, name, value)
    return Request(header=export_pb2.ExportHeader(audio=audio, output=output, tags=tags))


def parts(generation_id, samples, **header_changes) -> list[Request]:
    writer = PcmWriter(samples.shape[1])
    chunks = [Request(chunk=chunk) for chunk in writer.chunks(samples.tobytes())]
    return [header(generation_id, samples, **header_changes), *chunks, Request(end=writer.end())]


class Client:
    """A service under a data directory of its own, and its stub."""

    def __init__(self, data_dir: Path, stub: export_pb2_grpc.ExportServiceAsyncStub) -> None:
        self.data_dir, self.stub = data_dir, stub

    async def export(self, generation_id, samples, **changes) -> export_pb2.ExportResponse:
        return await self.send(parts(generation_id, samples, **changes))

    async def send(self, requests: Sequence[Request], close: bool = True) -> export_pb2.ExportResponse:
        """Sends what is given; `close` False where the server is to end the call by itself.

        By hand and never more than is due: grpc.aio's client takes a write that the end of the call cuts off for an
        error of its own (grpc/grpc#36066).
        """
        upload = self.upload()
        await upload.send(*requests)
        return await (upload.finish() if close else upload.call)

    def files(self) -> set[str]:
        """All files under the data directory but the socket."""
        found = (path for path in self.data_dir.rglob("*") if path.is_file())
        return {path.relative_to(self.data_dir).as_posix() for path in found}

    def upload(self) -> Upload:
        return Upload(self.stub)

    async def listen(self, generation_id, start_frame=0, level=0, wait_seconds=0.0, **conversion) -> Heard:
        heard = Heard(self.stub, generation_id, start_frame, level, wait_seconds, **conversion)
        await heard.begin()
        return heard

    async def hear(self, generation_id, start_frame=0, level=0, wait_seconds=0.0, **conversion):
        return await (await self.listen(generation_id, start_frame, level, wait_seconds, **conversion)).rest()

    async def fetched(self, generation_id, start_byte=0, byte_count=0) -> list[export_pb2.DownloadResponse]:
        """The messages of a download."""
        request = export_pb2.DownloadRequest(generation_id=generation_id, start_byte=start_byte, byte_count=byte_count)
        return [response async for response in self.stub.Download(request, timeout=TIMEOUT)]

    async def import_clip(self, content: bytes, close: bool = True) -> export_pb2.ImportClipResponse:
        """Sends a file; `close` False where the server is to end the call by itself, at the last message sent."""
        call = self.stub.ImportClip(timeout=TIMEOUT)
        for start in range(0, len(content), 65_536):
            await call.write(export_pb2.ImportClipRequest(data=content[start : start + 65_536]))
        if close:
            await call.done_writing()
        return await call


class Upload:
    """An export that is fed by hand."""

    def __init__(self, stub) -> None:
        self.call = stub.Export(timeout=TIMEOUT)

    async def send(self, *requests: Request) -> None:
        for request in requests:
            await self.call.write(request)

    async def finish(self) -> export_pb2.ExportResponse:
        await self.call.done_writing()
        return await self.call


class Heard:
    """A listener that checks what it hears as it comes."""

    def __init__(self, stub, generation_id, start_frame, level, wait_seconds, **conversion) -> None:
        request = export_pb2.StreamAudioRequest(
            generation_id=generation_id, start_frame=start_frame, level=level, wait_seconds=wait_seconds, **conversion
        )
        self.call = stub.StreamAudio(request, timeout=TIMEOUT)
        self.start_frame = start_frame
        self.pcm = b""

    async def begin(self) -> None:
        self.responses = aiter(self.call)
        first = await anext(self.responses)
        self.header = first.header
        self.reader = PcmReader(first.header)

    async def until(self, frames: int) -> np.ndarray:
        """Reads on until so many frames have come."""
        async for response in self.responses:
            assert response.chunk.start_frame == self.start_frame + self.reader.frames
            self.pcm += self.reader.accept(response.chunk)
            if self.reader.frames >= frames:
                break
        return self.samples

    async def rest(self) -> np.ndarray:
        """Reads to the end, which has to add up."""
        ended = False
        async for response in self.responses:
            assert not ended
            if response.WhichOneof("part") == "end":
                self.reader.finish(response.end)
                ended = True
            else:
                assert response.chunk.start_frame == self.start_frame + self.reader.frames
                self.pcm += self.reader.accept(response.chunk)
        assert ended
        return self.samples

    @property
    def samples(self) -> np.ndarray:
        return np.frombuffer(self.pcm, dtype="<f4").reshape(-1, self.header.channels)


def output(format_="WAV_PCM_24", **options) -> OutputOptions:
    return OutputOptions(format=f"FILE_FORMAT_{format_}", **options)


@asynccontextmanager
async def serving(data_dir: Path, **changes) -> AsyncIterator[Client]:
    settings = ExportSettings(data_dir=data_dir, **{"grace_seconds": 0.2, **changes})
    with tempfile.TemporaryDirectory() as folder:  # A socket's path has to be short.
        address = f"unix:{folder}/export.sock"
        channel = connect(address)
        try:
            async with serve_services([build(settings)], [address], settings):
                yield Client(data_dir, export_pb2_grpc.ExportServiceStub(channel))
        finally:
            await channel.close(TIMEOUT)  # An answer that is on its way still arrives.


@asynccontextmanager
async def refused(code: str, reason: str | None = None, field: str | None = None, says: str = ""):
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        yield
    error = raised.value
    assert error.code().name == code, error.details()
    assert says in (error.details() or "")
    info, violations = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in rpc_status.from_call(error).details:
        detail.Unpack(info) or detail.Unpack(violations)
    if reason is not None:
        assert info.reason == reason
    if field is not None:
        assert [violation.field for violation in violations.field_violations] == [field]
