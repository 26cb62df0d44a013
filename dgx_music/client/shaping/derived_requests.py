"""Requests for music that is made from earlier music: variations and edits."""

from __future__ import annotations

import uuid

from dgx_music.storage.v1.conditioning_pb2 import (
    EDIT_KIND_EXTEND_LEFT,
    EDIT_KIND_EXTEND_RIGHT,
    EDIT_KIND_REPAINT,
    Edit,
)
from dgx_music.storage.v1.storage_pb2 import CreateGenerationRequest, Generation


def vary(source: Generation) -> CreateGenerationRequest:
    """Returns a request for the same music as the source, with another seed."""
    request = _describe(source)
    request.variation_of, request.duration_seconds = source.id, source.duration_seconds
    for name in ("continuation", "edit", "loop"):
        if source.HasField(name):
            getattr(request, name).CopyFrom(getattr(source, name))
    if source.HasField("output"):
        request.output.CopyFrom(source.output)
    return request


def extend_left(source: Generation, seconds: float) -> CreateGenerationRequest:
    """Returns a request for the source with so much music before it."""
    return _edit(source, Edit(source_id=source.id, kind=EDIT_KIND_EXTEND_LEFT, added_seconds=seconds))


def extend_right(source: Generation, seconds: float) -> CreateGenerationRequest:
    """Returns a request for the source with so much music after it."""
    return _edit(source, Edit(source_id=source.id, kind=EDIT_KIND_EXTEND_RIGHT, added_seconds=seconds))


def repaint(source: Generation, start_seconds: float, end_seconds: float) -> CreateGenerationRequest:
    """Returns a request for the source with new music in a part of it."""
    edit = Edit(source_id=source.id, kind=EDIT_KIND_REPAINT, start_seconds=start_seconds, end_seconds=end_seconds)
    return _edit(source, edit)


def _edit(source: Generation, edit: Edit) -> CreateGenerationRequest:
    request = _describe(source)
    request.edit.CopyFrom(edit)
    # What refers to times of the source means nothing in the new part.
    request.conditioning.ClearField("sections")
    request.conditioning.ClearField("melody")
    if not request.conditioning.ListFields():
        request.ClearField("conditioning")
    return request


def _describe(source: Generation) -> CreateGenerationRequest:
    """Returns a request with the source's model and texts. Of a clip, only the id is known."""
    request = CreateGenerationRequest(request_id=str(uuid.uuid4()), prompt=source.prompt, model_name=source.model_name)
    for name in ("sampling", "conditioning"):
        if source.HasField(name):
            getattr(request, name).CopyFrom(getattr(source, name))
    return request


def override(request: CreateGenerationRequest, changes: CreateGenerationRequest) -> CreateGenerationRequest:
    """Puts into the request what is set in `changes`, but for the duration, which follows from the source."""
    for name in ("further_prompts", "sections", "adapters"):
        if getattr(changes.conditioning, name):
            request.conditioning.ClearField(name)
    duration = request.duration_seconds
    request.MergeFrom(changes)
    request.duration_seconds = duration
    return request
