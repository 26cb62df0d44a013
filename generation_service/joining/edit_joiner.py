"""Joins the new music of an edit to what is kept of the source, while it is generated."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from generation_service.joining.alignment import find_offset
from generation_service.joining.crossfade import crossfade, match_level
from generation_service.joining.edit_plan import EditPlan
from generation_service.models.base import FloatArray
from service_runtime.audio.block_size import BLOCK_FRAMES


class EditJoiner:
    """Turns the model's output into the middle of the result: from the joint with the head to that with the tail.

    The result is source[: head_frames - lead_frames], what `feed` and `finish` return, and
    source[tail_start + joint_frames :].
    """

    def __init__(self, plan: EditPlan, lead: FloatArray, tail: FloatArray) -> None:
        """lead: the source's last `lead_frames` before the new part. tail: its first frames after it, at least
        `joint_frames`; those up to `alignment_frames` are compared. [n, channels] each."""
        self._plan = plan
        self._lead = lead
        self._tail = tail
        self._is_led = not plan.lead_frames
        self._gain = 1.0
        self._buffer: FloatArray = np.zeros((0, tail.shape[1]), np.float32)
        # What is aligned is known only at the end: until then, it is kept once, not joined again with every block.
        self._held: FloatArray = np.empty((plan.generated_frames if plan.alignment_frames else 0, tail.shape[1]), "f4")
        self._held_frames = 0
        self._returned = 0
        """Frames of the new part that were returned."""

    def feed(self, samples: FloatArray) -> FloatArray:
        """Adds what the model generated, [n, channels] at the source's rate. Returns what is ready."""
        if self._plan.alignment_frames:
            end = self._held_frames + len(samples)
            self._held[self._held_frames : end] = samples
            self._held_frames = end
            return self._take(0)
        self._buffer = np.concatenate([self._buffer, samples * np.float32(self._gain)])
        if self._is_led:
            return self._take(self._plan.new_frames - self._returned)
        if len(self._buffer) < self._plan.lead_frames:
            return self._take(0)
        self._is_led = True
        led = self._buffer[: self._plan.lead_frames]
        if self._plan.continues_head:
            self._gain = match_level(led, self._lead)
        joint = crossfade(self._lead, led * np.float32(self._gain))
        self._buffer = self._buffer[self._plan.lead_frames :] * np.float32(self._gain)
        return np.concatenate([joint, self._take(self._plan.new_frames)])

    def finish(self) -> Iterator[FloatArray]:
        """Yields the rest, with the joint to the tail. The model has generated `generated_frames`."""
        plan, span = self._plan, self._plan.alignment_frames
        if span:
            end = self._held[plan.new_frames :]
            compared = min(span, len(self._tail))
            offset = find_offset(end[: span + compared], self._tail[:compared], plan.sample_rate_hz)
            self._buffer = self._held[offset:]
        while self._returned < plan.new_frames:
            yield self._take(min(BLOCK_FRAMES, plan.new_frames - self._returned))
        yield crossfade(self._buffer[: plan.joint_frames], self._tail[: plan.joint_frames])

    def _take(self, frames: int) -> FloatArray:
        taken, self._buffer = self._buffer[:frames], self._buffer[frames:]
        self._returned += len(taken)
        return taken
