"""`dgx-music play`, and `generate --play` and `--stdout`: listening while the music is generated, and afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Self

import grpc.aio

from dgx_music.error_status import read_error_details
from gateway.cli.display.console import Console
from gateway.cli.playback.audio_sink import AudioSink
from gateway.cli.playback.resuming_stream import ResumingAudioStream
from gateway.cli.session.command_errors import FAILURE, format_error
from gateway.cli.session.runner import Session
from gateway.cli.session.standard_streams import OutputLost

PATIENCE_SECONDS = 2.0
"""How long the first sample may take before the user is told why nothing is heard."""

NOTHING_TO_PLAY = ("GENERATION_FAILED", "GENERATION_CANCELLED")
"""The reasons with which the gateway ends the audio of a generation that has not been completed."""


def create_sink(console: Console, *, to_stdout: bool, is_raw: bool) -> AudioSink:
    """Returns the sound card, or standard output. Raises CommandError if it can't take samples."""
    if to_stdout:
        from gateway.cli.playback.standard_output_stream import StandardOutputStream

        return StandardOutputStream(console.print_notice, is_raw=is_raw)
    from gateway.cli.playback.sound_card import SoundCard

    return SoundCard()


async def play(
    session: Session, console: Console, generation_id: str, sink: AudioSink, *, from_seconds: float = 0.0
) -> int:
    """Plays a generation or a clip to its end, from this position on."""
    stream = ResumingAudioStream(session, generation_id, from_seconds, console.print_notice)
    loop = asyncio.get_running_loop()
    waiting = loop.call_later(
        PATIENCE_SECONDS, console.print_notice, f"waiting for the first sample of generation {generation_id}"
    )
    is_open = False
    try:
        async with aclosing(stream.blocks()) as blocks:
            async for block in blocks:
                waiting.cancel()
                if not is_open:
                    is_open = True
                    await sink.open(block.pcm_format)
                await sink.write(block.pcm)
        await sink.finish()
    finally:
        waiting.cancel()
        sink.stop()
    return 0


class Playback:
    """Plays generations one after another while the block runs. Without a sink, does nothing."""

    def __init__(
        self, session: Session, console: Console, sink: AudioSink | None, generation_ids: Sequence[str]
    ) -> None:
        self._session = session
        self._console = console
        self._sink = sink
        self._generation_ids = generation_ids
        self._task: asyncio.Task[int] | None = None

    async def __aenter__(self) -> Self:
        if self._sink is not None:
            self._task = asyncio.create_task(self._play_all(self._sink))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    def stop(self) -> None:
        """Stops playing at once."""
        if self._task is not None:
            self._task.cancel()
        if self._sink is not None:
            self._sink.stop()

    async def finish(self) -> int:
        """Waits until all has been played, and returns the exit status: what can't be played is generated all the same.

        Raises OutputLost if standard output was lost meanwhile.
        """
        if self._task is None:
            return 0
        try:
            return await self._task
        except OutputLost:
            raise
        except Exception as error:
            return self._console.print_error(f"stopped playing: {format_error(error)[0]}")

    async def _play_all(self, sink: AudioSink) -> int:
        status = 0
        for generation_id in self._generation_ids:
            try:
                await play(self._session, self._console, generation_id, sink)
            except grpc.aio.AioRpcError as error:
                if read_error_details(error).reason not in NOTHING_TO_PLAY:
                    raise
                status = FAILURE  # Why is told where the generation is followed.
        return status
