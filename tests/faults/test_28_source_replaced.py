"""Fault 28: the file of a source is replaced by that of a newer attempt while an edit reads it. The result has no parts
of both: the edit starts again with the new file."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from dgx_music.export.v1 import export_pb2
from dgx_music.pcm import PcmWriter, live_header
from dgx_music.storage.v1 import storage_pb2 as pb
from dgx_music.storage.v1.conditioning_pb2 import EDIT_KIND_REPAINT, Edit
from service_runtime.generated_length import EDIT_JOINT_SECONDS, EDIT_LEAD_SECONDS
from tests.support.service_stack import ServiceStack, is_pending_after
from tests.support.tone_model import RATE_HZ, Gate, tone, tone_parameters

SECONDS, START, END = 6.0, 2.0, 4.0


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[ServiceStack]:
    stack = ServiceStack(tmp_path)
    try:
        await stack.start("storage", "export", "generation")
        yield stack
    finally:
        await stack.stop_all()


def newer_attempt(generation_id: str) -> Iterator[export_pb2.ExportRequest]:
    """As a worker would send it that had been stopped past its lease, and got the job again."""
    writer, samples = PcmWriter(2), tone(tone_parameters("a", SECONDS * 10, seed=330))
    yield export_pb2.ExportRequest(
        header=export_pb2.ExportHeader(audio=live_header(generation_id, 2, RATE_HZ, 2, len(samples)))
    )
    for chunk in writer.chunks(samples.tobytes()):
        yield export_pb2.ExportRequest(chunk=chunk)
    yield export_pb2.ExportRequest(end=writer.end())


async def test_edit_has_no_parts_of_two_attempts_at_its_source(stack: ServiceStack) -> None:
    source = await stack.wait_until_ended(await stack.create("source", SECONDS))
    path = stack.folder / source.file_path
    gate = stack.model.at["edit", 1] = Gate()
    edit = Edit(source_id=source.id, kind=EDIT_KIND_REPAINT, start_seconds=START, end_seconds=END)
    edit_id = await stack.create("edit", SECONDS, edit=edit)
    await gate.reached()
    before = path.stat().st_ino
    await stack.export.Export(newer_attempt(source.id), timeout=60)
    assert path.stat().st_ino != before
    del stack.model.at["edit", 1]
    gate.open()
    waiting = await stack.wait_until(edit_id, is_pending_after(1))
    assert waiting.error_message == (f"edit.source_id: the file of {source.id} was replaced while it was read; retry")
    done = await stack.wait_until_ended(edit_id)
    assert (done.state, done.attempt) == (pb.GENERATION_STATE_COMPLETED, 2)
    result, kept = (
        soundfile.read(file, dtype="int32", always_2d=True)[0] for file in (stack.folder / done.file_path, path)
    )
    head, tail = (round(seconds * RATE_HZ) for seconds in (START - EDIT_LEAD_SECONDS, END + EDIT_JOINT_SECONDS))
    assert np.array_equal(result[:head], kept[:head])
    assert np.array_equal(result[tail:], kept[tail:])
