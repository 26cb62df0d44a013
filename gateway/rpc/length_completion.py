"""Decides how long a generation is, and checks that the model can generate as much."""

from __future__ import annotations

import math
from typing import Any

from dgx_music.errors import InvalidArgument
from dgx_music.generation.v1.generation_pb2 import Model
from dgx_music.limits import DEFAULT_DURATION_SECONDS, LOOP_BPM_RANGE, MIN_DURATION_SECONDS
from dgx_music.storage.v1.conditioning_pb2 import EDIT_KIND_REPAINT, Edit
from dgx_music.storage.v1.storage_pb2 import CreateGenerationRequest
from service_runtime.generated_length import joint_seconds, loop_generation_seconds, new_seconds
from service_runtime.message_fields import read_fields
from service_runtime.prompt_tempo import parse_tempo
from service_runtime.shaping import check_edit, check_length, check_loop, edited_seconds, loop_seconds


def complete_length(request: CreateGenerationRequest, model: Model, source_seconds: float = 0.0) -> None:
    """Sets the duration, and the tempo of a loop if the prompt names it. `source_seconds` is the length of what is
    edited. Raises InvalidArgument if the model would have to generate more than it can."""
    if request.HasField("edit"):
        _complete_edit(request, model, source_seconds)
    elif request.HasField("loop"):
        _complete_loop(request, model)
    else:
        limit = model.max_duration_seconds
        if request.HasField("continuation"):
            limit = model.max_continuation_seconds or limit
        request.duration_seconds = request.duration_seconds or min(DEFAULT_DURATION_SECONDS, limit)
        if request.duration_seconds > limit:
            rest = " after what it continues" if limit < model.max_duration_seconds else ""
            problem = f"must be at most {limit:g} s for model {model.name}{rest}, not {request.duration_seconds:g}"
            raise InvalidArgument("duration_seconds", problem)


def edit_fields(edit: Edit) -> dict[str, Any]:
    """Returns the fields of a valid edit, as `service_runtime.shaping` takes them. Raises InvalidArgument."""
    fields = read_fields(edit)
    check_edit("edit", fields)
    return fields


def _complete_edit(request: CreateGenerationRequest, model: Model, source_seconds: float) -> None:
    edit = edit_fields(request.edit)
    _set_duration(request, edited_seconds("edit", edit, source_seconds))
    new, joints, limit = new_seconds(edit), joint_seconds(edit), model.max_continuation_seconds
    if new + joints > limit:
        most = math.floor(100 * (limit - joints)) / 100
        problem = f"model {model.name} generates at most {limit:g} s, of which the joints take {joints:g}"
        way_out = f"use at most {most:g} s" if most >= MIN_DURATION_SECONDS else "use another model"
        field = "edit.end_seconds" if request.edit.kind == EDIT_KIND_REPAINT else "edit.added_seconds"
        raise InvalidArgument(field, f"needs {new:.10g} s of new music; {problem}: {way_out}")


def _complete_loop(request: CreateGenerationRequest, model: Model) -> None:
    loop = request.loop
    if not loop.bpm:
        tempo = parse_tempo(request.prompt)
        if tempo is None:
            low, high = LOOP_BPM_RANGE
            raise InvalidArgument(
                "loop.bpm", f'must be {low} to {high}, or the prompt must name the tempo, for example "at 84 BPM"'
            )
        loop.bpm = tempo
    fields = read_fields(loop)
    check_loop("loop", fields)
    _set_duration(request, loop_seconds(fields))
    needed, limit = loop_generation_seconds(fields), model.max_duration_seconds
    if needed > limit:
        raise InvalidArgument(
            "loop.bars",
            f"needs {needed:.4g} s of music with the bar before the loop, but model {model.name} generates at most "
            f"{limit:g} s; use fewer bars or a higher tempo",
        )


def _set_duration(request: CreateGenerationRequest, seconds: float) -> None:
    if request.duration_seconds:
        check_length("duration_seconds", request.duration_seconds, seconds)
    request.duration_seconds = seconds
