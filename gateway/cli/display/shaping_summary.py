"""The fields that say what shaped a generation besides its prompt."""

from __future__ import annotations

from collections.abc import Sequence

from dgx_music.storage.v1.conditioning_pb2 import (
    EDIT_KIND_EXTEND_LEFT,
    EDIT_KIND_REPAINT,
    LINEAGE_RELATION_VARIATION,
    Adapter,
    Conditioning,
    Edit,
)
from dgx_music.storage.v1.storage_pb2 import Generation
from gateway.cli.display.console import escape_text


def shaping_fields(generation: Generation) -> Sequence[tuple[str, str]]:
    """Returns pairs of label and text; an empty text is not shown."""
    conditions = generation.conditioning
    return (
        *_edit(generation),
        ("loop", _loop(generation)),
        ("variation of", ", ".join(_ids(generation))),
        ("negative", escape_text(conditions.negative_prompt)),
        ("also", _further_prompts(conditions)),
        ("sections", _sections(conditions)),
        ("melody", _excerpt(conditions.melody.source_id, conditions.melody.start_seconds)),
        ("style", _excerpt(conditions.style.source_id, conditions.style.start_seconds)),
        ("adapters", ", ".join(map(_adapter, conditions.adapters))),
        ("lyrics", escape_text(" / ".join(filter(None, conditions.lyrics.splitlines())))),
        ("steps", str(conditions.steps or "")),
    )


def _edit(generation: Generation) -> Sequence[tuple[str, str]]:
    edit: Edit = generation.edit
    if not generation.HasField("edit"):
        return ()
    if edit.kind == EDIT_KIND_REPAINT:
        return (("repaints", f"{edit.start_seconds:g} to {edit.end_seconds:g} s of {edit.source_id}"),)
    side = "before" if edit.kind == EDIT_KIND_EXTEND_LEFT else "after"
    return (("extends", f"{edit.source_id}, by {edit.added_seconds:g} s {side} it"),)


def _loop(generation: Generation) -> str:
    loop = generation.loop
    if not generation.HasField("loop"):
        return ""
    beats = f" of {loop.beats_per_bar} beats" if loop.beats_per_bar else ""
    return f"{loop.bars} bar{'s' * (loop.bars != 1)}{beats} at {loop.bpm:g} BPM"


def _ids(generation: Generation) -> Sequence[str]:
    return [parent.id for parent in generation.parents if parent.relation == LINEAGE_RELATION_VARIATION]


def _further_prompts(conditions: Conditioning) -> str:
    return "; ".join(f"{escape_text(one.prompt)} (weight {one.weight:g})" for one in conditions.further_prompts)


def _sections(conditions: Conditioning) -> str:
    return "; ".join(
        f"{one.start_seconds:g} to {one.end_seconds:g} s: {escape_text(one.prompt)}" for one in conditions.sections
    )


def _excerpt(source_id: str, start_seconds: float) -> str:
    return f"of {source_id}" + (f", from {start_seconds:g} s" if start_seconds else "") if source_id else ""


def _adapter(adapter: Adapter) -> str:
    scale = f" at {adapter.scale:g}" if adapter.HasField("scale") else ""
    return f"{escape_text(adapter.name)}{scale}"
