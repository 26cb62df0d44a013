"""The samples of a generation from any position on, which a lost connection or a failed attempt interrupts but does not
end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from typing import NamedTuple

import grpc
import grpc.aio

from dgx_music.audio.v1.audio_pb2 import AUDIO_LEVEL_LIVE, AUDIO_LEVEL_UNSPECIFIED
from dgx_music.error_status import read_error_details, status_of
from dgx_music.errors import DataLoss
from dgx_music.export.v1.export_pb2 import StreamAudioRequest, StreamAudioResponse
from dgx_music.pcm import PcmReader
from gateway.cli.playback.audio_sink import PcmFormat
from gateway.cli.session.command_errors import BAD_INPUT, CommandError
from gateway.cli.session.runner import Session
from gateway.timeouts import STREAM_TIMEOUT_SECONDS

RESUME_SECONDS = 20.0
"""How long to try to go on after an interruption; a server that is restarted is back in a few seconds."""
FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.1, 1.0
"""Before the first try, doubled after each up to the maximum."""
ATTEMPT_ABORTED = "ATTEMPT_BROKE_OFF"
"""The reason with which a stream ends when another attempt will generate the same samples again."""


class AudioBlock(NamedTuple):
    """A part of the audio; the first one of a stream is empty."""

    pcm_format: PcmFormat
    pcm: bytes


class ResumingAudioStream:
    """The samples of one generation or clip: of the finished file if there is one, else as they are generated.

    `from_seconds` is where they start. `print_notice` is told when the stream was interrupted.
    """

    def __init__(
        self, session: Session, generation_id: str, from_seconds: float, print_notice: Callable[[str], None]
    ) -> None:
        self._session = session
        self._generation_id = generation_id
        self._from_seconds = from_seconds
        self._print_notice = print_notice
        self._format: PcmFormat | None = None
        self._level = AUDIO_LEVEL_UNSPECIFIED
        self._next_frame = 0

    async def blocks(self) -> AsyncGenerator[AudioBlock, None]:
        """Yields the audio. Raises CommandError or the call's error if it can't go on."""
        pause, lost_at = FIRST_PAUSE_SECONDS, 0.0
        while True:
            try:
                async for block in self._receive():
                    pause, lost_at = FIRST_PAUSE_SECONDS, 0.0
                    yield block
                return
            except (grpc.aio.AioRpcError, DataLoss) as error:
                self._raise_unless_resumable(error)
                if not lost_at:
                    lost_at = time.monotonic()
                    self._print_notice(f"interrupted at {self._position:.1f} s ({_reason(error)}); trying to resume")
                elif time.monotonic() - lost_at > RESUME_SECONDS:
                    raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, MAX_PAUSE_SECONDS)

    @property
    def _position(self) -> float:
        """The position in seconds."""
        return self._next_frame / self._format.sample_rate_hz if self._format else 0.0

    async def _receive(self) -> AsyncGenerator[AudioBlock, None]:
        """Yields the audio of one call, from the next frame on."""
        request = StreamAudioRequest(generation_id=self._generation_id, start_frame=self._next_frame, level=self._level)
        call = self._session.music.StreamAudio(request, timeout=STREAM_TIMEOUT_SECONDS)
        reader = None
        try:
            async for response in call:
                if reader is None:
                    reader = PcmReader(response.header)
                    if self._start_at(reader):
                        break  # To be called again: only now is it known which frame is at that time.
                    assert self._format is not None
                    yield AudioBlock(self._format, b"")
                elif (pcm := _accept(reader, response)) is not None:
                    assert self._format is not None
                    self._next_frame += len(pcm) // self._format.frame_bytes
                    yield AudioBlock(self._format, pcm)
                else:
                    return
            else:
                raise DataLoss("the audio stream ended too early", reason="NO_END")
        finally:
            call.cancel()
        async for block in self._receive():
            yield block

    def _start_at(self, reader: PcmReader) -> bool:
        """Reads the header. Returns whether the call must be repeated for the position to start at."""
        header = reader.header
        is_first = self._format is None
        if is_first:
            self._level = header.level
            self._next_frame = round(self._from_seconds * header.sample_rate_hz)
        left = max(header.expected_frames - self._next_frame, 0) if header.expected_frames else 0
        received = PcmFormat(header.sample_rate_hz, header.channels, left)
        if self._format is not None and received[:2] != self._format[:2]:
            raise CommandError("the next attempt's audio has another format; listen to it with: dgx-music play ID")
        self._format = received
        return is_first and self._next_frame > 0

    def _raise_unless_resumable(self, error: grpc.aio.AioRpcError | DataLoss) -> None:
        if isinstance(error, DataLoss):
            return
        details = read_error_details(error)
        if details.code is grpc.StatusCode.OUT_OF_RANGE and self._format is not None:
            seconds = int(details.metadata.get("frames", "0")) / self._format.sample_rate_hz
            raise CommandError(
                f"--from: {self._from_seconds:g} s is past the end; there are {seconds:g} s", BAD_INPUT
            ) from error
        if details.code is grpc.StatusCode.NOT_FOUND and self._level == AUDIO_LEVEL_LIVE:
            # The samples as generated have expired meanwhile; those of the file are at the same positions.
            self._level = AUDIO_LEVEL_UNSPECIFIED
            return
        if details.reason == ATTEMPT_ABORTED:
            return
        is_lost = details.code is grpc.StatusCode.UNAVAILABLE or (
            status_of(error) is None and details.code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED)
        )
        if self._format is None or not is_lost:
            raise error


def _accept(reader: PcmReader, response: StreamAudioResponse) -> bytes | None:
    """Returns the samples of the next message, or None for the end. Raises DataLoss."""
    if response.HasField("chunk"):
        return reader.accept(response.chunk)
    reader.finish(response.end)
    return None


def _reason(error: grpc.aio.AioRpcError | DataLoss) -> str:
    return error.message if isinstance(error, DataLoss) else read_error_details(error).message
