"""What is meant by --continue, and a clip's way in through the gateway."""

from __future__ import annotations

import io
import uuid
import wave
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import grpc.aio
import pytest

from dgx_music.export.v1 import export_pb2 as export
from dgx_music.status import read_error_details
from dgx_music.storage.v1 import storage_pb2 as storage
from dgx_music.storage.v1.storage_pb2 import Continuation
from gateway.cli.commands.continuation_source import Source, which_source
from gateway.cli.session.command_errors import CommandError
from gateway.embedded.service_set import LIBRARY

from .conftest import _living_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import House

SECONDS = 60.0
RATE = 16_000


def wav(seconds: float) -> bytes:
    """A file of 16-bit silence."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, RATE, 0, "NONE", ""))
        writer.writeframes(bytes(round(seconds * RATE) * 2))
    return file.getvalue()


def pieces(content: bytes) -> Iterator[export.ImportClipRequest]:
    for start in range(0, len(content), 65_536):
        yield export.ImportClipRequest(data=content[start : start + 65_536])


def test_a_source_is_an_id_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.wav").touch()
    id_ = str(uuid.uuid4())
    assert which_source("", None) is None
    assert which_source(id_.upper(), None) == Source(id_, 0.0)
    assert which_source("x.wav", 2.5) == Source(Path("x.wav"), 2.5)
    with pytest.raises(CommandError, match=r"y\.wav is neither"):
        which_source("y.wav", None)
    with pytest.raises(CommandError, match="with --continue only"):
        which_source("", 5.0)


async def test_a_clip_comes_in_through_the_gateway(idle: House) -> None:
    clip = await idle.music.ImportClip(pieces(wav(20.0)), timeout=SECONDS)
    assert (clip.frames, clip.sample_rate_hz, clip.channels) == (20 * RATE, RATE, 1)
    outline = await idle.export.GetWaveform(
        export.GetWaveformRequest(generation_id=clip.clip_id, points=1), timeout=SECONDS
    )
    assert list(outline.data) == [0, 0]


async def test_a_clip_is_heard_through_the_gateway(idle: House) -> None:
    clip = await idle.music.ImportClip(pieces(wav(1.0)), timeout=SECONDS)
    request = export.StreamAudioRequest(generation_id=clip.clip_id, wait_seconds=60)
    parts = [part async for part in idle.music.StreamAudio(request, timeout=SECONDS)]
    assert parts[0].header.generation_id == clip.clip_id
    assert (parts[-1].end.total_frames, parts[-1].end.sha256) == (clip.frames, clip.pcm_sha256)


async def test_a_foreign_file_is_refused_in_exports_words_however_much_of_it_is_on_its_way(idle: House) -> None:
    content = b"\0" * 4_000_000
    with pytest.raises(grpc.aio.AioRpcError) as theirs:
        await idle.export.ImportClip(pieces(content[:1000]), timeout=SECONDS)
    with pytest.raises(grpc.aio.AioRpcError) as ours:
        await idle.music.ImportClip(pieces(content), timeout=SECONDS)
    assert read_error_details(ours.value) == read_error_details(theirs.value)
    assert list(read_error_details(ours.value).violations) == ["data"]


async def test_a_clip_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    content = wav(300.0)
    async with asynccontextmanager(_living_in)(tmp_path, LIBRARY) as house:
        call = house.music.ImportClip(timeout=SECONDS)
        for piece in list(pieces(content))[:-1]:
            await call.write(piece)
        assert list(tmp_path.rglob("*.upload.part")), "export is writing it"
        call.cancel()
    assert [path for path in tmp_path.rglob("*") if path.is_file() and "clip" in str(path.relative_to(tmp_path))] == []


async def test_a_model_that_cannot_continue_is_refused(whole: House) -> None:
    request = storage.CreateGenerationRequest(
        prompt="techno", duration_seconds=1.0, continuation=Continuation(source_id=str(uuid.uuid4()))
    )
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await whole.music.CreateGeneration(request, timeout=SECONDS)
    failure = read_error_details(refused.value)
    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert list(failure.violations) == ["continuation"]
    assert "`dgx-music models pull musicgen-small` gets one" in failure.message
