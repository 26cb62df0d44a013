"""A finished file's samples at another sample rate or channel count, or the last of them only."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace

import numpy as np

from dgx_music.errors import InvalidArgument
from export_service.dsp.resampling import Resampler, resampled_frame_count
from export_service.streaming.audio_stream import FinalAudio, Level, LiveAudio, require_within
from export_service.threads import on_thread

LIVE_AS_IT_IS = "live audio comes as it is only; ask for level FINAL, which wait_seconds waits for"


@dataclass(frozen=True)
class Conversion:
    """What a listener asks for; 0 as it is."""

    sample_rate_hz: int = 0
    channels: int = 0
    last_seconds: float = 0.0


class ConvertedAudio:
    """The samples of a finished file, converted.

    A frame's samples do not depend on where one begins to listen: a file is always resampled from its beginning,
    which takes about a second for ten minutes.
    """

    level = Level.FINAL

    def __init__(self, file: FinalAudio, conversion: Conversion) -> None:
        self._file = file
        rate = conversion.sample_rate_hz or file.take.sample_rate_hz
        whole = resampled_frame_count(file.frames, file.take.sample_rate_hz, rate)
        frames = round(min(conversion.last_seconds * rate, whole)) if conversion.last_seconds else whole
        self._passed_over = whole - frames
        self.take = replace(
            file.take,
            sample_rate_hz=rate,
            channels=conversion.channels or file.take.channels,
            expected_frames=frames,
        )

    @property
    def frames(self) -> int:
        """Frames that there are to hear."""
        return self.take.expected_frames

    def require_start(self, start_frame: int) -> None:
        """Raises OutOfRange past the end."""
        require_within(start_frame, self.frames, "start_frame", "frames")

    async def blocks(self, start_frame: int) -> AsyncGenerator[bytes, None]:
        """PCM from the frame on, which lies within."""
        source, skip = self._file.take, self._passed_over + start_frame
        converter = await on_thread(
            Resampler, source.sample_rate_hz, source.channels, self.take.sample_rate_hz, self.take.channels
        )
        if source.sample_rate_hz == self.take.sample_rate_hz:
            begin, skip = skip, 0
        else:
            begin = 0
        async with aclosing(self._file.blocks(begin)) as blocks:
            async for pcm in blocks:
                samples = await on_thread(converter.feed, np.frombuffer(pcm, "<f4").reshape(-1, source.channels))
                skipped, skip = samples[skip:], max(0, skip - len(samples))
                yield skipped.tobytes()
        yield (await on_thread(converter.finish))[skip:].tobytes()


def converted(audio: LiveAudio | FinalAudio, conversion: Conversion) -> LiveAudio | FinalAudio | ConvertedAudio:
    """The audio as asked for. Raises InvalidArgument where it is live and asked for otherwise than it is."""
    if isinstance(audio, FinalAudio):
        return audio if conversion == Conversion() else ConvertedAudio(audio, conversion)
    take = audio.take
    for field, asked, there in (
        ("sample_rate_hz", conversion.sample_rate_hz, take.sample_rate_hz),
        ("channels", conversion.channels, take.channels),
    ):
        if asked not in (0, there):
            raise InvalidArgument(field, f"must be 0 or {there}, not {asked}: {LIVE_AS_IT_IS}")
    if conversion.last_seconds:
        raise InvalidArgument("last_seconds", f"must be 0: {LIVE_AS_IT_IS}")
    return audio
