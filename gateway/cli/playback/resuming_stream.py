"""The samples of a generation from any position on, which a lost connection or a failed attempt interrupts but does not
end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import NamedTuple

import grpc
import grpc.aio

from dgx_music.audio.v1.audio_pb2 import AUDIO_LEVEL_LIVE, AUDIO_LEVEL_UNSPECIFIED, AudioHeader
from dgx_music.client.audio_listening import FORMAT_CHANGED, AudioChunk, ListenRequest, resume_audio
from dgx_music.error_status import read_error_details, status_of
from dgx_music.errors import ServiceError
from dgx_music.export.v1.export_pb2 import StreamAudioRequest, StreamAudioResponse
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
        self._request = ListenRequest(generation_id)
        self._from_seconds = from_seconds
        self._print_notice = print_notice
        self._format: PcmFormat | None = None
        self._rate_hz = 0
        self._pause, self._lost_at = FIRST_PAUSE_SECONDS, 0.0

    async def blocks(self) -> AsyncGenerator[AudioBlock, None]:
        """Yields the audio. Raises CommandError or the call's error if it can't go on."""
        if self._from_seconds:  # Only the header tells which frame is at that time.
            async with aclosing(self._receive()) as parts:
                header = await anext(parts)
            assert isinstance(header, AudioHeader)
            self._rate_hz = header.sample_rate_hz
            self._request.start_frame = round(self._from_seconds * self._rate_hz)
        async with aclosing(self._receive()) as parts:
            async for part in parts:
                self._pause, self._lost_at = FIRST_PAUSE_SECONDS, 0.0
                if isinstance(part, AudioHeader):
                    self._rate_hz = part.sample_rate_hz
                    frames = part.expected_frames
                    left = max(frames - self._request.start_frame, 0) if frames else 0
                    self._format = PcmFormat(part.sample_rate_hz, part.channels, left)
                assert self._format is not None
                yield AudioBlock(self._format, part.pcm if isinstance(part, AudioChunk) else b"")

    def _receive(self) -> AsyncGenerator[AudioHeader | AudioChunk, None]:
        return resume_audio(self._request, self._call, self._wait)

    async def _call(self, message: StreamAudioRequest) -> AsyncGenerator[StreamAudioResponse, None]:
        call = self._session.music.StreamAudio(message, timeout=STREAM_TIMEOUT_SECONDS)
        try:
            async for response in call:
                yield response
        finally:
            call.cancel()

    async def _wait(self, error: Exception) -> None:
        """Waits before the next call. Raises CommandError or the error if that would not help."""
        assert isinstance(error, grpc.aio.AioRpcError | ServiceError)
        self._raise_unless_resumable(error)
        if not self._lost_at:
            self._lost_at = time.monotonic()
            position = self._request.start_frame / self._rate_hz if self._rate_hz else 0.0
            self._print_notice(f"interrupted at {position:.1f} s ({_message_of(error)}); trying to resume")
        elif time.monotonic() - self._lost_at > RESUME_SECONDS:
            raise error
        await asyncio.sleep(self._pause)
        self._pause = min(2 * self._pause, MAX_PAUSE_SECONDS)

    def _raise_unless_resumable(self, error: grpc.aio.AioRpcError | ServiceError) -> None:
        if isinstance(error, ServiceError):
            if error.reason == FORMAT_CHANGED:
                raise CommandError(
                    "the next attempt's audio has another format; listen to it with: dgx-music play ID"
                ) from error
            return
        details = read_error_details(error)
        if details.code is grpc.StatusCode.OUT_OF_RANGE and self._rate_hz:
            seconds = int(details.metadata.get("frames", "0")) / self._rate_hz
            raise CommandError(
                f"--from: {self._from_seconds:g} s is past the end; there are {seconds:g} s", BAD_INPUT
            ) from error
        if details.code is grpc.StatusCode.NOT_FOUND and self._request.level == AUDIO_LEVEL_LIVE:
            # The samples as generated have expired meanwhile; those of the file are at the same positions.
            self._request.level = AUDIO_LEVEL_UNSPECIFIED
            return
        if details.reason == ATTEMPT_ABORTED:
            return
        is_lost = details.code is grpc.StatusCode.UNAVAILABLE or (
            status_of(error) is None and details.code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED)
        )
        if not self._rate_hz or not is_lost:
            raise error


def _message_of(error: grpc.aio.AioRpcError | ServiceError) -> str:
    return error.message if isinstance(error, ServiceError) else read_error_details(error).message
