"""Importing, playing and continuing clips through the gateway."""

from __future__ import annotations

import io
import uuid
import wave
from collections.abc import Iterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from dgx_music.error_status import read_error_details
from dgx_music.export.v1 import export_pb2 as export
from dgx_music.storage.v1 import storage_pb2 as storage
from dgx_music.storage.v1.storage_pb2 import Continuation
from gateway.embedded.service_set import LIBRARY
from tests.support.embedded_services import EmbeddedServices, embedded_services

SECONDS = 60.0
RATE = 16_000


def wav(seconds: float) -> bytes:
    """Returns a WAV file of 16-bit silence."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, RATE, 0, "NONE", ""))
        writer.writeframes(bytes(round(seconds * RATE) * 2))
    return file.getvalue()


def import_requests(content: bytes) -> Iterator[export.ImportClipRequest]:
    for start in range(0, len(content), 65_536):
        yield export.ImportClipRequest(data=content[start : start + 65_536])


async def test_imported_clip_has_waveform(library_services: EmbeddedServices) -> None:
    clip = await library_services.music.ImportClip(import_requests(wav(20.0)), timeout=SECONDS)
    assert (clip.frames, clip.sample_rate_hz, clip.channels) == (20 * RATE, RATE, 1)
    waveform = await library_services.export.GetWaveform(
        export.GetWaveformRequest(generation_id=clip.clip_id, points=1), timeout=SECONDS
    )
    assert list(waveform.data) == [0, 0]


async def test_imported_clip_is_streamed(library_services: EmbeddedServices) -> None:
    clip = await library_services.music.ImportClip(import_requests(wav(1.0)), timeout=SECONDS)
    request = export.StreamAudioRequest(generation_id=clip.clip_id, wait_seconds=60)
    parts = [part async for part in library_services.music.StreamAudio(request, timeout=SECONDS)]
    assert parts[0].header.generation_id == clip.clip_id
    assert (parts[-1].end.total_frames, parts[-1].end.sha256) == (clip.frames, clip.pcm_sha256)


async def test_import_of_other_file_fails_with_error_of_export(
    library_services: EmbeddedServices,
) -> None:
    content = b"\0" * 4_000_000
    with pytest.raises(grpc.aio.AioRpcError) as export_error:
        await library_services.export.ImportClip(import_requests(content[:1000]), timeout=SECONDS)
    with pytest.raises(grpc.aio.AioRpcError) as gateway_error:
        await library_services.music.ImportClip(import_requests(content), timeout=SECONDS)
    assert read_error_details(gateway_error.value) == read_error_details(export_error.value)
    assert list(read_error_details(gateway_error.value).violations) == ["data"]


async def test_cancelled_import_leaves_no_file(tmp_path: Path) -> None:
    content = wav(300.0)
    async with embedded_services(tmp_path, LIBRARY) as services:
        call = services.music.ImportClip(timeout=SECONDS)
        for piece in list(import_requests(content))[:-1]:
            await call.write(piece)
        assert list(tmp_path.rglob("*.upload.part")), "export has not started to write"
        call.cancel()
    assert [path for path in tmp_path.rglob("*") if path.is_file() and "clip" in str(path.relative_to(tmp_path))] == []


async def test_continuation_with_model_that_cannot_is_rejected(all_services: EmbeddedServices) -> None:
    request = storage.CreateGenerationRequest(
        prompt="techno", duration_seconds=1.0, continuation=Continuation(source_id=str(uuid.uuid4()))
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await all_services.music.CreateGeneration(request, timeout=SECONDS)
    failure = read_error_details(caught.value)
    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(failure.violations) == ["continuation"]
    assert "run `dgx-music models pull musicgen-small`" in failure.message
