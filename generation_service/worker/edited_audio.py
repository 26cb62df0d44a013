"""Edits of earlier music: the source is copied sample for sample, and new music joined to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dgx_music.errors import InvalidArgument
from dgx_music.export.v1 import export_pb2_grpc
from dgx_music.storage.v1 import conditioning_pb2
from generation_service.engine.request_handle import GenerationHandle
from generation_service.joining.edit_joiner import EditJoiner
from generation_service.joining.edit_plan import EditKind, EditPlan, plan_edit
from generation_service.joining.peak_limiter import PeakLimiter
from generation_service.models.base import FloatArray, GenerationParameters, MetadataValue, ModelInfo
from generation_service.worker.source_audio import SourceAudio
from service_runtime.message_fields import read_fields
from service_runtime.shaping import check_edit

KINDS = {
    conditioning_pb2.EDIT_KIND_EXTEND_LEFT: EditKind.EXTEND_LEFT,
    conditioning_pb2.EDIT_KIND_EXTEND_RIGHT: EditKind.EXTEND_RIGHT,
    conditioning_pb2.EDIT_KIND_REPAINT: EditKind.REPAINT,
}


@dataclass(frozen=True, slots=True)
class AudioEdit:
    """An edit whose source has been found, and the parts of the source that are needed at once."""

    plan: EditPlan
    channels: int
    """The channels of the source, and of the result."""
    source: SourceAudio
    info: ModelInfo
    context: FloatArray | None
    """What the model continues, [n, channels] in the model's format."""
    lead: FloatArray
    tail: FloatArray
    """The parts of the source at the joints, [n, channels] in the source's format."""
    facts: dict[str, MetadataValue]

    @property
    def generated_seconds(self) -> float:
        return self.plan.generated_frames / self.plan.sample_rate_hz

    def complete(self, parameters: GenerationParameters) -> GenerationParameters:
        """Adds what the model continues."""
        rate = self.info.sample_rate_hz
        kept = round(self.plan.lead_frames * rate / self.plan.sample_rate_hz) if self.plan.continues_head else 0
        return replace(parameters, prompt_audio=self.context, kept_prompt_frames=kept)

    async def blocks(self, handle: GenerationHandle) -> AsyncIterator[FloatArray]:
        """Yields the result, [n, channels] in the source's format."""
        plan = self.plan
        with handle.read_later():
            async for block in self.source.blocks(0, plan.head_frames - plan.lead_frames):
                yield block
        joiner = EditJoiner(plan, self.lead, self.tail)
        limiter = PeakLimiter(self.channels, plan.sample_rate_hz)
        converter = FormatConverter(self.info, plan.sample_rate_hz, self.channels, plan.generated_frames)
        async for block in handle:
            yield limiter.feed(joiner.feed(converter.feed(block)))
        yield limiter.feed(joiner.feed(converter.finish()))
        for block in joiner.finish():
            yield limiter.feed(block)
        yield limiter.finish()
        kept_from = plan.tail_start + plan.joint_frames
        async for block in self.source.blocks(kept_from, plan.source_frames - kept_from):
            yield block


async def prepare_edit(
    edit: conditioning_pb2.Edit, info: ModelInfo, export: export_pb2_grpc.ExportServiceAsyncStub, timeout_seconds: float
) -> AudioEdit:
    """Finds the source and plans the edit. Raises InvalidArgument if the edit does not fit the source."""
    fields = read_fields(edit)
    check_edit("edit", fields)
    source_id = fields["source_id"]
    source = SourceAudio(export, source_id, "edit", timeout_seconds)
    header = await source.read_header()
    source = replace(source, attempt=header.attempt)
    rate, channels, frames = header.sample_rate_hz, header.channels, header.expected_frames
    start, end = (round(seconds * rate) for seconds in (edit.start_seconds, edit.end_seconds))
    kind = KINDS[edit.kind]
    if kind is EditKind.REPAINT and not 0 <= start < min(end, frames):
        raise InvalidArgument("edit.start_seconds", "must be before edit.end_seconds and the end of the source")
    plan = plan_edit(kind, frames, rate, start=start, end=min(end, frames), added=round(edit.added_seconds * rate))
    context = None
    if plan.context is not None:
        first, last = (round(frame * info.sample_rate_hz / rate) for frame in plan.context)
        context = await source.read(first, last - first, sample_rate_hz=info.sample_rate_hz, channels=info.channels)

    async def read(first: int, count: int) -> FloatArray:
        return await source.read(first, count, sample_rate_hz=rate, channels=channels)

    tail_frames = min(frames - plan.tail_start, max(plan.joint_frames, plan.alignment_frames))
    return AudioEdit(
        plan=plan,
        channels=channels,
        source=source,
        info=info,
        context=context,
        lead=await read(plan.head_frames - plan.lead_frames, plan.lead_frames),
        tail=await read(plan.tail_start, tail_frames),
        facts={
            "edited_from": source_id,
            "edit": kind.value,
            "new_from_seconds": plan.head_frames / rate,
            "new_to_seconds": (plan.head_frames + plan.new_frames) / rate,
        },
    )


class FormatConverter:
    """Converts the model's output to a sample rate and a channel count, to exactly `frames` frames."""

    def __init__(self, info: ModelInfo, sample_rate_hz: int, channels: int, frames: int) -> None:
        self._channels = channels
        self._remaining = frames
        self._resampler: Any = None
        if info.sample_rate_hz != sample_rate_hz:
            import soxr

            self._resampler = soxr.ResampleStream(
                info.sample_rate_hz, sample_rate_hz, channels, dtype="float32", quality="HQ"
            )

    def feed(self, samples: FloatArray) -> FloatArray:
        """Returns the frames that are ready, [n, channels]."""
        mixed = samples
        if samples.shape[1] != self._channels:
            mixed = samples.mean(axis=1, keepdims=True) if self._channels == 1 else np.repeat(samples, 2, axis=1)
        return self._emit(mixed if self._resampler is None else self._resampler.resample_chunk(mixed))

    def finish(self) -> FloatArray:
        """Returns the last frames; beyond what the model generated, silence."""
        last = np.zeros((0, self._channels), np.float32)
        if self._resampler is not None:
            last = self._resampler.resample_chunk(last, last=True)
        samples = self._emit(last)
        return np.concatenate([samples, np.zeros((self._remaining, self._channels), np.float32)])

    def _emit(self, samples: FloatArray) -> FloatArray:
        samples = samples[: self._remaining]
        self._remaining -= len(samples)
        return samples
