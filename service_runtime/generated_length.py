"""How much a model generates for an edit or a loop: the new music, and what is cut off or faded to join it."""

from __future__ import annotations

from service_runtime.shaping import DEFAULT_BEATS_PER_BAR, EXTEND_LEFT, REPAINT, Fields, loop_seconds

EDIT_LEAD_SECONDS = 0.04
"""The joint before the new part of an edit. If the model continues what is before, it repeats the source there, so that
the signals have most in common."""
EDIT_JOINT_SECONDS = 0.1
"""The joint after the new part. Longer ones would let both rhythms be heard."""
EDIT_ALIGNMENT_SECONDS = 1.0
"""How far the end of music in front of the source can be moved, so that their beats meet; as much is compared."""
LOOP_SEARCH_SECONDS = 0.01
"""How far after the bar line a loop may start, so that it starts where the signal crosses zero."""


def new_seconds(edit: Fields) -> float:
    """Returns the length of the new part of an edit that `check_edit` has accepted, in seconds."""
    if edit["kind"] == REPAINT:
        return float(edit["end_seconds"]) - float(edit.get("start_seconds", 0.0))
    return float(edit["added_seconds"])


def joint_seconds(edit: Fields) -> float:
    """Returns how much is generated at most beyond the new part, in seconds."""
    return 2 * EDIT_ALIGNMENT_SECONDS if edit["kind"] == EXTEND_LEFT else EDIT_LEAD_SECONDS + EDIT_JOINT_SECONDS


def bar_seconds(loop: Fields) -> float:
    """Returns the length of a bar of a loop that `check_loop` has accepted, in seconds."""
    return (loop.get("beats_per_bar") or DEFAULT_BEATS_PER_BAR) * 60.0 / float(loop["bpm"])


def loop_generation_seconds(loop: Fields) -> float:
    """Returns how much is generated for a loop: a bar more, before it."""
    return bar_seconds(loop) + LOOP_SEARCH_SECONDS + loop_seconds(loop)
