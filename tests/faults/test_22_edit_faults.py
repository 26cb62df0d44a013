"""An edit while export is killed, or while its source is deleted: the whole result or none, and nothing left behind."""

from __future__ import annotations

import asyncio
import io
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import numpy as np
import pytest
import soundfile

from dgx_music.audio.v1 import audio_pb2
from dgx_music.export.v1 import export_pb2
from dgx_music.storage.v1 import storage_pb2 as pb
from dgx_music.storage.v1.conditioning_pb2 import EDIT_KIND_REPAINT, Edit
from export_service.formats.reader import FinishedAudio
from export_service.streaming import audio_stream
from service_runtime.generated_length import EDIT_JOINT_SECONDS, EDIT_LEAD_SECONDS
from tests.support.joints import music
from tests.support.processes import process
from tests.support.service_stack import ServiceStack, is_pending_after
from tests.support.tone_model import Gate

pytestmark = pytest.mark.slow

RATE = 8000
SECONDS = 60.0
START, END = 50.0, 52.0


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[ServiceStack]:
    stack = ServiceStack(tmp_path)
    try:
        yield stack
    finally:
        await stack.stop_all()


def export_process(stack: ServiceStack) -> AbstractAsyncContextManager[asyncio.subprocess.Process]:
    variables = {
        "DGX_MUSIC_DATA_DIR": str(stack.folder),
        "DGX_MUSIC_EXPORT_ADDRESS": stack.addresses["export"],
        "DGX_MUSIC_LOG_LEVEL": "warning",
    }
    return process(sys.executable, "-m", "export_service.rpc.server", env={**os.environ, **variables})


async def import_source(stack: ServiceStack) -> tuple[str, np.ndarray]:
    """Returns the id of a clip, and its samples as integers, [n, channels]."""
    file = io.BytesIO()
    soundfile.write(file, music(SECONDS, RATE, channels=2), RATE, format="WAV", subtype="PCM_24")
    data = file.getvalue()
    pieces = [export_pb2.ImportClipRequest(data=data[at : at + 65536]) for at in range(0, len(data), 65536)]
    clip_id = (await stack.export.ImportClip(iter(pieces), timeout=60, wait_for_ready=True)).clip_id
    return clip_id, soundfile.read(io.BytesIO(data), dtype="int32", always_2d=True)[0]


async def create_repaint(stack: ServiceStack, source_id: str) -> str:
    edit = Edit(source_id=source_id, kind=EDIT_KIND_REPAINT, start_seconds=START, end_seconds=END)
    return await stack.create(seconds=SECONDS, edit=edit)


async def test_export_killed_while_an_edit_copies_its_source(stack: ServiceStack) -> None:
    await stack.start("storage", "generation")
    gate = stack.model.at["a", 1] = Gate()
    async with export_process(stack) as killed:
        clip_id, source = await import_source(stack)
        generation_id = await create_repaint(stack, clip_id)
        request = export_pb2.StreamAudioRequest(
            generation_id=generation_id, level=audio_pb2.AUDIO_LEVEL_LIVE, wait_seconds=30
        )
        async for part in stack.export.StreamAudio(request, timeout=60):
            if part.WhichOneof("part") == "chunk":  # The head of the source arrives.
                break
        killed.kill()
        await killed.wait()
    gate.open()
    del stack.model.at["a", 1]
    waiting = await stack.wait_until(generation_id, is_pending_after(1))
    assert waiting.error_message.startswith("export: ")
    assert stack.model.released == ["a"]
    async with export_process(stack):
        done = await stack.wait_until_ended(generation_id)
    assert done.state == pb.GENERATION_STATE_COMPLETED  # Attempts that began before export was back are free.
    (path,) = stack.audio_files()
    result = soundfile.read(path, dtype="int32", always_2d=True)[0]
    head, tail = round((START - EDIT_LEAD_SECONDS) * RATE), round((END + EDIT_JOINT_SECONDS) * RATE)
    assert result.shape == source.shape
    assert np.array_equal(result[:head], source[:head])
    assert np.array_equal(result[tail:], source[tail:])
    assert [spool.name for spool in stack.spools()] == [f"{generation_id}.{done.attempt}.pcm"]


@pytest.mark.parametrize("is_cancelled", [False, True], ids=["deleted", "deleted and cancelled"])
async def test_source_deleted_while_an_edit_copies_it(
    stack: ServiceStack, monkeypatch: pytest.MonkeyPatch, is_cancelled: bool
) -> None:
    await stack.start("storage", "export", "generation")
    clip_id, _ = await import_source(stack)
    gate, read_frames = Gate(), audio_stream._read_frames

    def read_later(path: Path, file: FinishedAudio, frames: int) -> bytes:
        if stack.model.received:  # What the model continues has been read.
            gate()
        return read_frames(path, file, frames)

    monkeypatch.setattr(audio_stream, "_read_frames", read_later)
    generation_id = await create_repaint(stack, clip_id)
    await gate.reached()
    await stack.export.DeleteFile(export_pb2.DeleteFileRequest(generation_id=clip_id), timeout=60)
    if is_cancelled:
        await stack.storage.CancelGeneration(pb.CancelGenerationRequest(id=generation_id), timeout=60)
    jobs = asyncio.create_task(stack.wait_for_jobs())
    gate.open()
    await jobs
    ended = await stack.wait_until_ended(generation_id)
    unknown = f"edit.source_id: there is no finished generation or clip with id {clip_id}"
    expected = (pb.GENERATION_STATE_CANCELLED, "") if is_cancelled else (pb.GENERATION_STATE_FAILED, unknown)
    assert (ended.state, ended.error_message) == expected
    await stack.model.release_of("a")
    await stack.stop("export")
    assert stack.audio_files() == stack.spools() == []
