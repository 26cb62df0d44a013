"""Where the new part of an edit goes, and what of the source is kept. Everything is counted in the source's frames."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from service_runtime.generated_length import EDIT_ALIGNMENT_SECONDS, EDIT_JOINT_SECONDS, EDIT_LEAD_SECONDS

CONTEXT_SECONDS = 10.0
"""How much of the source the model reads."""
MIN_CONTEXT_SECONDS = 0.5


class EditKind(Enum):
    EXTEND_LEFT = "extended to the left"
    EXTEND_RIGHT = "extended to the right"
    REPAINT = "repainted"


@dataclass(frozen=True, slots=True)
class EditPlan:
    """An edit of a source: source[:head_frames], then `new_frames` of new music, then source[tail_start:].

    Two joints change what is kept: the last `lead_frames` of the head and the first `joint_frames` of the tail are
    crossfaded with the new music.
    """

    source_frames: int
    sample_rate_hz: int
    head_frames: int
    new_frames: int
    tail_start: int
    lead_frames: int
    joint_frames: int
    context: tuple[int, int] | None
    """The part of the source that the model continues; None if it starts from nothing."""
    continues_head: bool = False
    """Whether that is the end of the head. If so, the model repeats the lead."""
    alignment_frames: int = 0
    """How many frames of the new music can be left out at its start, to align its end with the tail; as many are
    compared."""

    @property
    def frames(self) -> int:
        """The length of the result."""
        return self.head_frames + self.new_frames + self.source_frames - self.tail_start

    @property
    def generated_frames(self) -> int:
        """The frames that the model generates, the lead included."""
        return (
            self.lead_frames + self.new_frames + max(self.joint_frames, self.alignment_frames) + self.alignment_frames
        )


def plan_edit(
    kind: EditKind, source_frames: int, sample_rate_hz: int, *, start: int = 0, end: int = 0, added: int = 0
) -> EditPlan:
    """Returns the plan. start, end: what to repaint, 0 <= start < end <= source_frames. added: by how much to extend.

    The model continues what is before the new part. If there is nothing, it continues what is after it: the new part
    then has its character, and leads into it.
    """

    def frames_of(seconds: float) -> int:
        return round(seconds * sample_rate_hz)

    head, tail, new = {
        EditKind.EXTEND_LEFT: (0, 0, added),
        EditKind.EXTEND_RIGHT: (source_frames, source_frames, added),
        EditKind.REPAINT: (start, end, end - start),
    }[kind]
    least, most = frames_of(MIN_CONTEXT_SECONDS), frames_of(CONTEXT_SECONDS)
    continues_head = head >= least
    context: tuple[int, int] | None = None
    if continues_head:
        context = max(0, head - most), head
    elif source_frames - tail >= least:
        context = tail, min(source_frames, tail + most)
    aligns = kind is EditKind.EXTEND_LEFT
    return EditPlan(
        source_frames=source_frames,
        sample_rate_hz=sample_rate_hz,
        head_frames=head,
        new_frames=new,
        tail_start=tail,
        lead_frames=min(frames_of(EDIT_LEAD_SECONDS), head),
        joint_frames=min(frames_of(EDIT_JOINT_SECONDS), source_frames - tail),
        context=context,
        continues_head=continues_head,
        alignment_frames=frames_of(EDIT_ALIGNMENT_SECONDS) if aligns else 0,
    )
