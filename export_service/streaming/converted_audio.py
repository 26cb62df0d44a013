"""A finished file's samples converted to another sample rate or channel count, or only its last seconds."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace

import numpy as np

from dgx_music.errors import InvalidArgument
from export_service.dsp.resampling import Resampler, resampled_frame_count
from export_service.streaming.audio_stream import AudioLevel, FinalAudio, LiveAudio, validate_position
from export_service.threads import run_in_thread

LIVE_IS_NOT_CONVERTED = (
    "live audio is not converted; request level FINAL, and set wait_seconds to wait for the finished file"
)


@dataclass(frozen=True)
class Conversion:
    """How a listener wants the samples; 0 leaves a property unchanged."""

    sample_rate_hz: int = 0
    channels: int = 0
    last_seconds: float = 0.0
    """Stream only this much of the end of the file."""


class ConvertedAudio:
    """The converted samples of a finished file.

    A frame's samples do not depend on the frame at which a listener starts, because the file is always resampled from
    its beginning. That takes about a second for ten minutes of audio.
    """

    level = AudioLevel.FINAL

    def __init__(self, file: FinalAudio, conversion: Conversion) -> None:
        self._file = file
        rate = conversion.sample_rate_hz or file.spec.sample_rate_hz
        total = resampled_frame_count(file.frames, file.spec.sample_rate_hz, rate)
        frames = round(min(conversion.last_seconds * rate, total)) if conversion.last_seconds else total
        self._skipped_frames = total - frames
        self.spec = replace(
            file.spec,
            sample_rate_hz=rate,
            channels=conversion.channels or file.spec.channels,
            expected_frames=frames,
        )

    @property
    def frames(self) -> int:
        """The number of frames after the conversion."""
        return self.spec.expected_frames

    def validate_start_frame(self, start_frame: int) -> None:
        """Raises OutOfRange if the frame is past the end."""
        validate_position(start_frame, self.frames, "start_frame", "frames")

    async def blocks(self, start_frame: int) -> AsyncGenerator[bytes, None]:
        """Yields PCM from the given frame on, which must have been validated."""
        source, skip = self._file.spec, self._skipped_frames + start_frame
        converter = await run_in_thread(
            Resampler, source.sample_rate_hz, source.channels, self.spec.sample_rate_hz, self.spec.channels
        )
        if source.sample_rate_hz == self.spec.sample_rate_hz:
            source_start, skip = skip, 0
        else:
            source_start = 0
        async with aclosing(self._file.blocks(source_start)) as blocks:
            async for pcm in blocks:
                samples = await run_in_thread(converter.feed, np.frombuffer(pcm, "<f4").reshape(-1, source.channels))
                wanted, skip = samples[skip:], max(0, skip - len(samples))
                yield wanted.tobytes()
        yield (await run_in_thread(converter.finish))[skip:].tobytes()


def convert_audio(audio: LiveAudio | FinalAudio, conversion: Conversion) -> LiveAudio | FinalAudio | ConvertedAudio:
    """Applies the conversion. Raises InvalidArgument if the audio is live and would have to be changed."""
    if isinstance(audio, FinalAudio):
        return audio if conversion == Conversion() else ConvertedAudio(audio, conversion)
    for field, requested, actual in (
        ("sample_rate_hz", conversion.sample_rate_hz, audio.spec.sample_rate_hz),
        ("channels", conversion.channels, audio.spec.channels),
    ):
        if requested not in (0, actual):
            raise InvalidArgument(field, f"must be 0 or {actual}, not {requested}: {LIVE_IS_NOT_CONVERTED}")
    if conversion.last_seconds:
        raise InvalidArgument("last_seconds", f"must be 0: {LIVE_IS_NOT_CONVERTED}")
    return audio
