"""The requests with which the jobs of a soak are created."""

from __future__ import annotations

import uuid

from dgx_music.audio.v1 import audio_pb2
from dgx_music.storage.v1 import storage_pb2 as storage
from dgx_music.storage.v1.conditioning_pb2 import (
    EDIT_KIND_EXTEND_LEFT,
    EDIT_KIND_EXTEND_RIGHT,
    EDIT_KIND_REPAINT,
    Edit,
    Loop,
)
from tests.soak.ledger import Entry
from tests.soak.schedule import Job

ADDED_SECONDS = 1.5
LOOP_BPM = 240.0
REPAINTED_SHARE = 0.4


def build_request(job: Job, source: Entry | None) -> storage.CreateGenerationRequest:
    """Returns the request. A job that needs a source is new music if there is none."""
    request = storage.CreateGenerationRequest(
        request_id=job.request_id,
        prompt=job.prompt,
        duration_seconds=job.seconds,
        seed=job.seed,
        output=audio_pb2.OutputOptions(format=audio_pb2.FileFormat.Value(f"FILE_FORMAT_{job.format}")),
        max_attempts=job.max_attempts,
        priority=job.number % 3 - 1,
    )
    if job.shape == "loop":
        request.loop.CopyFrom(Loop(bars=2, bpm=LOOP_BPM))
        request.duration_seconds = 0
    if source is None:
        return request
    length = source.request.duration_seconds
    edit = Edit(source_id=source.id)
    match job.shape:
        case "extend left" | "extend right":
            edit.kind = EDIT_KIND_EXTEND_LEFT if job.shape == "extend left" else EDIT_KIND_EXTEND_RIGHT
            edit.added_seconds = ADDED_SECONDS
        case "repaint":
            edit.kind = EDIT_KIND_REPAINT
            edit.start_seconds = round(length * job.position * (1 - REPAINTED_SHARE), 3)
            edit.end_seconds = round(edit.start_seconds + length * REPAINTED_SHARE, 3)
        case "continuation":
            request.continuation.source_id = source.id
        case "variation":
            request.variation_of = source.id
    if edit.kind:
        request.edit.CopyFrom(edit)
        request.duration_seconds = 0
    return request


def second_request(request: storage.CreateGenerationRequest) -> storage.CreateGenerationRequest:
    """Returns the other request of a batch."""
    second = storage.CreateGenerationRequest()
    second.CopyFrom(request)
    second.request_id = str(uuid.uuid5(uuid.UUID(request.request_id), "second"))
    second.seed += 1
    return second
