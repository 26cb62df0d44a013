"""Gives an in-process export service (`run_export_service`) and a client that exports, listens and checks streams."""

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
from service_runtime.rpc.client_stream import ClientStreamCall
from service_runtime.rpc.server import serve_services

RATE_HZ = 32_000
TIMEOUT_SECONDS = 60.0
TAGS = export_pb2.Tags(model_name="sketch", model_version="1", genre="house", bpm=124, key="C minor", license="CC0")
Request = export_pb2.ExportRequest


def music(seconds: float, channels: int = 2, seed: int = 1, level: float = 1.0) -> np.ndarray:
    """Returns [frames, channels]: a chord of varying loudness with noise bursts at 120 BPM."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    chord = sum(np.sin(2 * np.pi * f * time) for f in (110.0, 220.0, 277.2)) * 0.1 * (1.1 + np.sin(time))
    bursts = random.standard_normal((len(time), channels)) * 0.05 * np.exp(-(time % 0.5) * 25)[:, None]
    return ((chord[:, None] + bursts) * level).astype(np.float32)


def new_id() -> str:
    return str(uuid.uuid4())


def build_header(generation_id, samples, *, attempt=1, expected=None, output=None, tags=TAGS, **changes):
    """Returns the first request of an export. `changes` are fields of its audio header."""
    frames = len(samples) if expected is None else expected
    audio = live_header(generation_id, attempt, RATE_HZ, samples.shape[1], frames)
    for name, value in changes.items():
        setattr(audio, name, value)
    return Request(header=export_pb2.ExportHeader(audio=audio, output=output, tags=tags))


def kept_spool(generation_id: str, attempt: int = 1) -> set[str]:
    """Returns the names of the files that are kept of an attempt that was received completely, but failed."""
    return {f"{generation_id}.{attempt}.pcm.part", f"{generation_id}.{attempt}.json"}


def finished_spool(generation_id: str, attempt: int = 1, *, is_converted: bool = False) -> set[str]:
    """Returns the paths of the files that are kept of a completed attempt. `is_converted`: whether the file has another
    sample rate or other channels than the samples.
    """
    stem = f"spool/{generation_id}.{attempt}"
    return {f"{stem}.pcm", f"{stem}.json"} if is_converted else {f"{stem}.pcm"}


def build_requests(generation_id, samples, **header_changes) -> list[Request]:
    """Returns all requests of an export."""
    writer = PcmWriter(samples.shape[1])
    chunks = [Request(chunk=chunk) for chunk in writer.chunks(samples.tobytes())]
    return [build_header(generation_id, samples, **header_changes), *chunks, Request(end=writer.end())]


class ExportClient:
    """A stub of a service, and the service's data directory."""

    def __init__(self, data_dir: Path, stub: export_pb2_grpc.ExportServiceAsyncStub) -> None:
        self.data_dir, self.stub = data_dir, stub

    async def export(self, generation_id, samples, **changes) -> export_pb2.ExportResponse:
        return await self.send(build_requests(generation_id, samples, **changes))

    async def send(self, requests: Sequence[Request], close: bool = True) -> export_pb2.ExportResponse:
        """Sends the requests. Pass `close=False` if the server is expected to end the call after the last of them.

        Without closing, no more may be sent than the server reads: grpc.aio's client reports a write that is cut off by
        the end of the call as an error of its own (grpc/grpc#36066).
        """
        if close:
            return await _send(self.stub.Export, requests)
        upload = self.upload()
        await upload.send(*requests)
        return await upload.call

    def files(self) -> set[str]:
        """Returns the paths of all files in the data directory."""
        paths = (path for path in self.data_dir.rglob("*") if path.is_file())
        return {path.relative_to(self.data_dir).as_posix() for path in paths}

    def library_files(self) -> set[str]:
        """Returns the paths of all files in the data directory except the spools."""
        return {path for path in self.files() if not path.startswith("spool/")}

    def spools(self) -> set[str]:
        """Returns the names of the files in the folder of the spools."""
        return {path.removeprefix("spool/") for path in self.files() if path.startswith("spool/")}

    async def resume(self, generation_id: str, attempt: int) -> export_pb2.ResumeExportResponse:
        request = export_pb2.ResumeExportRequest(generation_id=generation_id, attempt=attempt)
        return await self.stub.ResumeExport(request, timeout=TIMEOUT_SECONDS)

    def upload(self) -> Upload:
        return Upload(self.stub)

    async def listen(self, generation_id, start_frame=0, level=0, wait_seconds=0.0, **conversion) -> AudioListener:
        """Opens an audio stream and reads its header."""
        listener = AudioListener(self.stub, generation_id, start_frame, level, wait_seconds, **conversion)
        await listener.open()
        return listener

    async def read_audio(self, generation_id, start_frame=0, level=0, wait_seconds=0.0, **conversion) -> np.ndarray:
        """Reads an audio stream to its end."""
        return await (await self.listen(generation_id, start_frame, level, wait_seconds, **conversion)).read_rest()

    async def download(self, generation_id, start_byte=0, byte_count=0) -> list[export_pb2.DownloadResponse]:
        request = export_pb2.DownloadRequest(generation_id=generation_id, start_byte=start_byte, byte_count=byte_count)
        return [response async for response in self.stub.Download(request, timeout=TIMEOUT_SECONDS)]

    async def clear(self) -> None:
        """Deletes all files of the library."""
        request = export_pb2.CleanupRequest(keep_newest_bytes=0)
        results = [result async for result in self.stub.Cleanup(request, timeout=TIMEOUT_SECONDS)]
        assert not [result for result in results if result.kept_because]

    async def import_clip(self, content: bytes, close: bool = True) -> export_pb2.ImportClipResponse:
        """Uploads a file. Pass `close=False` if the server is expected to end the call after the last message."""
        parts = [content[start : start + 65_536] for start in range(0, len(content), 65_536)]
        requests = [export_pb2.ImportClipRequest(data=part) for part in parts]
        if close:
            return await _send(self.stub.ImportClip, requests)
        call = self.stub.ImportClip(timeout=TIMEOUT_SECONDS)
        for request in requests:
            await call.write(request)
        return await call


async def _send(method, requests):
    call = ClientStreamCall(method, TIMEOUT_SECONDS)
    for request in requests:
        await call.write(request)
    return await call.finish()


class Upload:
    """An export call whose requests are sent step by step."""

    def __init__(self, stub) -> None:
        self.call = stub.Export(timeout=TIMEOUT_SECONDS)

    async def send(self, *requests: Request) -> None:
        for request in requests:
            await self.call.write(request)

    async def finish(self) -> export_pb2.ExportResponse:
        await self.call.done_writing()
        return await self.call


class AudioListener:
    """A listener that checks framing and checksums of what it receives."""

    def __init__(self, stub, generation_id, start_frame, level, wait_seconds, **conversion) -> None:
        request = export_pb2.StreamAudioRequest(
            generation_id=generation_id, start_frame=start_frame, level=level, wait_seconds=wait_seconds, **conversion
        )
        self.call = stub.StreamAudio(request, timeout=TIMEOUT_SECONDS)
        self.start_frame = start_frame
        self.pcm = b""

    async def open(self) -> None:
        self.responses = aiter(self.call)
        first = await anext(self.responses)
        self.header = first.header
        self.reader = PcmReader(first.header)

    async def read_until(self, frames: int) -> np.ndarray:
        """Reads until at least this many frames have arrived. Returns all samples so far."""
        async for response in self.responses:
            self._accept(response)
            if self.reader.frames >= frames:
                break
        return self.samples

    async def read_rest(self) -> np.ndarray:
        """Reads to the end of the stream, which must be consistent. Returns all samples."""
        ended = False
        async for response in self.responses:
            assert not ended
            if response.WhichOneof("part") == "end":
                self.reader.finish(response.end)
                ended = True
            else:
                self._accept(response)
        assert ended
        return self.samples

    def _accept(self, response: export_pb2.StreamAudioResponse) -> None:
        assert response.chunk.start_frame == self.start_frame + self.reader.frames
        self.pcm += self.reader.accept(response.chunk)

    @property
    def samples(self) -> np.ndarray:
        return np.frombuffer(self.pcm, dtype="<f4").reshape(-1, self.header.channels)


def output_options(format_="WAV_PCM_24", **options) -> OutputOptions:
    return OutputOptions(format=f"FILE_FORMAT_{format_}", **options)


@asynccontextmanager
async def run_export_service(data_dir: Path, **changes) -> AsyncIterator[ExportClient]:
    """Runs a service in this process and yields a client of it. `changes` are fields of its settings."""
    settings = ExportSettings(data_dir=data_dir, **{"grace_seconds": 0.2, **changes})
    with tempfile.TemporaryDirectory() as folder:  # The path of a socket must be short.
        address = f"unix:{folder}/export.sock"
        channel = connect(address)
        try:
            async with serve_services([build(settings)], [address], settings):
                yield ExportClient(data_dir, export_pb2_grpc.ExportServiceStub(channel))
        finally:
            await channel.close(TIMEOUT_SECONDS)  # Lets responses that are already on their way arrive.


@asynccontextmanager
async def raises_rpc_error(code: str, reason: str | None = None, field: str | None = None, match: str = ""):
    """Expects the block to raise an RPC error with this code, reason, violated field and part of the message."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        yield
    error = raised.value
    assert error.code().name == code, error.details()
    assert match in (error.details() or "")
    info, violations = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in rpc_status.from_call(error).details:
        detail.Unpack(info) or detail.Unpack(violations)
    if reason is not None:
        assert info.reason == reason
    if field is not None:
        assert [violation.field for violation in violations.field_violations] == [field]
