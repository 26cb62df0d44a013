"""The sound card, through PortAudio, as the library sounddevice gives it."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from gateway.cli.playback.audio_sink import PcmFormat
from gateway.cli.session.command_errors import CommandError
from service_runtime.optional_deps import install_extra_command

BUFFER_SECONDS = 1.0
"""How far the samples that have arrived may be ahead of those that are heard."""
START_SECONDS = 0.2
"""How much must have arrived before it is heard, at the start and after samples came too late."""
WITHOUT = "or send the samples to another program: --stdout | ffplay -"


class SoundUnavailable(Exception):
    """Nothing can be heard on this machine as it is."""

    def __init__(self, problem: str, way_out: str) -> None:
        super().__init__(problem, way_out)
        self.problem, self.way_out = problem, way_out


class SoundCard:
    """Plays samples. If they come too late, it is silent until enough have arrived again, and drops none.

    PortAudio asks for samples in a thread of its own. Raises CommandError if there is no sound card.
    """

    def __init__(self) -> None:
        try:
            self._library, _ = find_output()
        except SoundUnavailable as error:
            raise CommandError(f"{error.problem}; {error.way_out}, {WITHOUT}") from error
        self._stream: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = asyncio.Event()
        """Set in the loop when there may be room again, and when the stream has ended."""
        self._lock = threading.Lock()
        # These are shared with PortAudio's thread.
        self._pending = bytearray()
        self._is_waiting = True
        self._is_complete = False
        self._has_ended = False

    async def open(self, pcm_format: PcmFormat) -> None:
        """Opens the card's default output."""
        self.stop()
        self._loop = asyncio.get_running_loop()
        self._pending.clear()
        self._is_waiting, self._is_complete, self._has_ended = True, False, False
        frame_bytes = pcm_format.frame_bytes
        self._start_bytes = round(START_SECONDS * pcm_format.sample_rate_hz) * frame_bytes
        self._max_bytes = round(BUFFER_SECONDS * pcm_format.sample_rate_hz) * frame_bytes
        try:
            # "high" is the latency for playing what needs no reaction; it is a fraction of a second.
            self._stream = self._library.RawOutputStream(
                samplerate=pcm_format.sample_rate_hz,
                channels=pcm_format.channels,
                dtype="float32",
                latency="high",
                callback=self._fill,
                finished_callback=self._on_end,
            )
            self._stream.start()
        except (self._library.PortAudioError, ValueError) as error:
            raise CommandError(
                f"the sound card can't play {pcm_format.sample_rate_hz} Hz with {pcm_format.channels} channels "
                f"({_one_line(error)}); choose another as the system's default, {WITHOUT}"
            ) from error

    async def write(self, pcm: bytes) -> None:
        """Takes whole frames. Waits until at most a second of them is left to be heard."""
        with self._lock:
            self._pending += pcm
        while len(self._pending) > self._max_bytes:
            await self._wait_for_change()

    async def finish(self) -> None:
        """Waits until all samples have been heard."""
        with self._lock:
            self._is_complete = True
        while not self._has_ended:
            await self._wait_for_change()
        self.stop()

    def stop(self) -> None:
        """Stops playing at once."""
        if self._stream is not None:
            self._stream.abort()
            self._stream.close()
            self._stream = None

    async def _wait_for_change(self) -> None:
        self._changed.clear()
        if self._has_ended and not self._is_complete:
            raise CommandError(f"the sound card has stopped; connect it again, {WITHOUT}")
        await self._changed.wait()

    def _fill(self, output: Any, frames: int, time: Any, status: Any) -> None:
        """Writes the next samples to the card's buffer `output`, in PortAudio's thread."""
        size = len(output)
        with self._lock:
            self._is_waiting = self._is_waiting and not self._is_complete and len(self._pending) < self._start_bytes
            taken = b"" if self._is_waiting else bytes(self._pending[:size])
            del self._pending[: len(taken)]
            is_at_end = self._is_complete and not self._pending
            self._is_waiting = self._is_waiting or len(taken) < size
        output[: len(taken)] = taken
        output[len(taken) :] = bytes(size - len(taken))
        self._notify()
        if is_at_end:
            raise self._library.CallbackStop  # What it has taken is heard to its end.

    def _on_end(self) -> None:
        self._has_ended = True
        self._notify()

    def _notify(self) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._changed.set)


def find_output() -> tuple[Any, str]:
    """Returns the library sounddevice and the name of the card. Raises SoundUnavailable."""
    try:
        import sounddevice
    except ImportError as error:
        raise SoundUnavailable("playing requires the extra play", f"run `{install_extra_command('play')}`") from error
    except OSError as error:
        way_out = "run `apt install libportaudio2` or `brew install portaudio`"
        raise SoundUnavailable("playing requires PortAudio", way_out) from error
    try:
        return sounddevice, str(sounddevice.query_devices(kind="output")["name"])
    except (sounddevice.PortAudioError, ValueError) as error:
        raise SoundUnavailable(f"there is no sound card ({_one_line(error)})", "connect one") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
