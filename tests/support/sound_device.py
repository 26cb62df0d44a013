"""`SoundDevice` stands for the library sounddevice where there is no sound card: its streams take samples in a thread
of their own, as PortAudio's do, and keep what would be heard."""

from __future__ import annotations

import asyncio
import threading
import types
from collections.abc import Callable
from typing import Any

BUFFER_FRAMES = 512
BUFFER_SECONDS = 0.0005
"""Between two buffers: faster than music, so that tests are."""

WAIT_SECONDS = 60.0


class PortAudioError(Exception):
    pass


class CallbackStop(Exception):
    pass


class OutputStream:
    """A running output. `heard` are the bytes of all buffers that it took, silence included."""

    def __init__(
        self,
        *,
        samplerate: int,
        channels: int,
        dtype: str,
        latency: str,
        callback: Callable[..., None],
        finished_callback: Callable[[], None],
    ) -> None:
        assert dtype == "float32"
        self.format = (samplerate, channels)
        self.heard = bytearray()
        self.is_aborted = False
        self._frame_bytes = 4 * channels
        self._callback = callback
        self._finished_callback = finished_callback
        self._stop = threading.Event()
        self._took_buffer = threading.Condition()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def abort(self) -> None:
        self.is_aborted = True
        self.close()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def unplug(self) -> None:
        """Ends the stream as a device does that goes away."""
        self._stop.set()

    def _run(self) -> None:
        buffer = bytearray(BUFFER_FRAMES * self._frame_bytes)
        try:
            while not self._stop.wait(BUFFER_SECONDS):
                buffer[:] = b"\xff" * len(buffer)  # A card's buffer holds anything.
                try:
                    self._callback(memoryview(buffer), BUFFER_FRAMES, None, None)
                finally:
                    with self._took_buffer:
                        self.heard += buffer
                        self._took_buffer.notify_all()
        except CallbackStop:
            pass
        self._finished_callback()

    async def wait_until(self, is_reached: Callable[[], bool]) -> None:
        """Waits until enough has been heard."""

        def wait() -> None:
            with self._took_buffer:
                assert self._took_buffer.wait_for(is_reached, WAIT_SECONDS)

        await asyncio.to_thread(wait)

    def sounds(self) -> bytes:
        """Returns the frames that were heard and are not silent."""
        size = self._frame_bytes
        frames = (bytes(self.heard[start : start + size]) for start in range(0, len(self.heard), size))
        return b"".join(frame for frame in frames if any(frame))


class SoundDevice(types.ModuleType):
    """The module, with the streams that were opened."""

    PortAudioError = PortAudioError
    CallbackStop = CallbackStop

    def __init__(self, problem: Exception | None = None) -> None:
        super().__init__("sounddevice")
        self.streams: list[OutputStream] = []
        self.problem = problem

    def query_devices(self, kind: str) -> dict[str, Any]:
        if self.problem is not None:
            raise self.problem
        return {"name": "test"}

    def RawOutputStream(self, **options: Any) -> OutputStream:
        if options["samplerate"] == 8001:
            raise PortAudioError("Invalid sample rate [PaErrorCode -9997]")
        self.streams.append(OutputStream(**options))
        return self.streams[-1]
