"""A generation whose methods block, and the stream of its audio."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Unpack

from dgx_music.audio.v1.audio_pb2 import AudioHeader
from dgx_music.client.async_generation import AsyncAudioStream, AsyncGeneration
from dgx_music.client.audio_listening import AudioChunk
from dgx_music.client.blocking.loop_thread import LoopThread
from dgx_music.client.generation_fields import GenerationFields
from dgx_music.client.generation_options import FileOptions, GenerationOptions
from dgx_music.client.notebook_player import explain, frame_html
from dgx_music.client.option_signature import spell_out
from dgx_music.client.stem_files import Stems
from dgx_music.client.waveform_drawing import Waveform
from dgx_music.errors import Cancelled
from dgx_music.storage.v1.storage_pb2 import Generation as Message
from dgx_music.storage.v1.storage_pb2 import LineageNode

if TYPE_CHECKING:
    from dgx_music.client.audio_listening import Samples


class Generation(GenerationFields):
    """A request for music and its result. Its fields are as of the last call of one of its methods.

    In a notebook it shows a player and its waveform. Every method raises `dgx_music.errors`.
    """

    def __init__(self, thread: LoopThread, inner: AsyncGeneration) -> None:
        self._thread, self._inner = thread, inner

    @property
    def message(self) -> Message:
        return self._inner.message

    def watch(self, timeout: float | None = None) -> Iterator[Generation]:
        """Yields this generation, as it is now and after each change, until it is finished.

        Goes on after a lost connection. Raises DeadlineExceeded after `timeout` seconds, and NotFound if it is deleted.
        """
        for _ in self._thread.iterate(self._inner.watch(timeout)):
            yield self

    def wait(
        self, timeout: float | None = None, on_progress: Callable[[Generation], object] | None = None
    ) -> Generation:
        """Waits until it is completed, and returns it. `on_progress` is called with it at each change, in this thread.

        Survives a restart of the server. Raises GenerationFailed or GenerationCancelled, NotFound if it
        is deleted, and DeadlineExceeded after `timeout` seconds; it then goes on nevertheless.
        """
        events: SimpleQueue[AsyncGeneration] = SimpleQueue()
        on_change = None if on_progress is None else events.put
        report = on_progress or (lambda generation: None)
        self._thread.run(self._inner.wait(timeout, on_change), events, lambda _: report(self))
        return self

    def refresh(self) -> Generation:
        """Reads its fields again, and returns it."""
        self._thread.run(self._inner.refresh())
        return self

    @spell_out(FileOptions)
    def save(self, path: str | os.PathLike[str], **options: Unpack[FileOptions]) -> Path:
        """Saves the finished file, or another format of it: `save("a.mp3")` renders an MP3 if needed. Returns the
        path of the file.

        A folder takes the file under its own name. The file appears when it is complete, and replaces what was there.
        Raises InvalidArgument if the folder does not exist or an option is invalid, FailedPrecondition if it is not
        completed, DataLoss if the file is not the one that was recorded, and OSError if it can't be written.
        """
        return self._thread.run(self._inner.save(path, **options))

    @spell_out(FileOptions)
    def read(self, **options: Unpack[FileOptions]) -> bytes:
        """Returns the bytes of the finished file, or of another format of it. Errors as of `save`."""
        return self._thread.run(self._inner.read(**options))

    def audio(self) -> Samples:
        """Returns the samples of the finished file: float32 [frames, channels] at `sample_rate` Hz, read-only.

        Waits until it is completed. Needs NumPy: raises ImportError without it.
        """
        return self._thread.run(self._inner.audio())

    def midi(self) -> bytes:
        """Returns its notes as a standard MIDI file. Raises FailedPrecondition, which says why, if it knows none or
        it is not completed."""
        return self._thread.run(self._inner.midi())

    def stems(self, folder: str | os.PathLike[str]) -> Stems:
        """Saves its stems, such as drums and bass, as WAV files of 32-bit floats in a folder, which is created if
        it is missing, and returns their paths.

        Raises FailedPrecondition, which says why, if it has no stems or is not completed, DataLoss if they do not
        arrive completely, and OSError if a file can't be written.
        """
        return self._thread.run(self._inner.stems(folder))

    def waveform(self, points: int = 800) -> Waveform:
        """Returns the waveform of the finished file, for drawing, in 1 to 10000 points."""
        return self._thread.run(self._inner.waveform(points))

    def stream(self, *, start_frame: int = 0, timeout: float | None = None) -> AudioStream:
        """Returns its audio from a frame on: live while it is being generated, afterwards from the file."""
        return AudioStream(self._thread, self._inner.stream(start_frame=start_frame, timeout=timeout))

    def cancel(self) -> Generation:
        """Cancels it, and returns it. Raises FailedPrecondition if it is finished."""
        self._thread.run(self._inner.cancel())
        return self

    def retry(self) -> Generation:
        """Queues it again after it has failed, and returns it. Raises FailedPrecondition in any other state."""
        self._thread.run(self._inner.retry())
        return self

    def delete(self) -> None:
        """Deletes it with its files. Raises FailedPrecondition while it is processing."""
        self._thread.run(self._inner.delete())

    def rate(self, rating: int) -> Generation:
        """Sets your rating, 1 to 5, or removes it with 0, and returns it."""
        self._thread.run(self._inner.rate(rating))
        return self

    @spell_out(GenerationOptions)
    def extend(
        self,
        prompt: str = "",
        *,
        left: float | None = None,
        right: float | None = None,
        **options: Unpack[GenerationOptions],
    ) -> Generation:
        """Queues this music with new music before it (`left` seconds) or after it (`right` seconds).

        What is not given is as in this one. Raises FailedPrecondition if it is not completed, and InvalidArgument if
        the model can't continue audio.
        """
        return self._wrap(self._thread.run(self._inner.extend(prompt, left=left, right=right, **options)))

    @spell_out(GenerationOptions)
    def repaint(self, start: float, end: float, prompt: str = "", **options: Unpack[GenerationOptions]) -> Generation:
        """Queues this music with new music from `start` to `end` seconds, which fits what is before and after it.

        What is not given is as in this one. Raises FailedPrecondition if it is not completed, and InvalidArgument if
        the model can't continue audio.
        """
        return self._wrap(self._thread.run(self._inner.repaint(start, end, prompt, **options)))

    @spell_out(GenerationOptions)
    def variations(self, count: int = 4, **options: Unpack[GenerationOptions]) -> list[Generation]:
        """Queues this music again, at most 100 times, all or none: with random seeds, or `seed` and those after it."""
        return [self._wrap(one) for one in self._thread.run(self._inner.variations(count, **options))]

    def lineage(self) -> list[LineageNode]:
        """Returns this generation, what it was made from and what was made from it, directly and indirectly, oldest
        first; at most 1000."""
        return self._thread.run(self._inner.lineage())

    def _wrap(self, inner: AsyncGeneration) -> Generation:
        return Generation(self._thread, inner)

    def _repr_html_(self) -> str:
        try:
            return self._thread.run(self._inner.to_html())
        except (RuntimeError, Cancelled) as error:  # The client is closed.
            return frame_html(self, explain(error))


class AudioStream:
    """The audio of a generation or a clip, chunk by chunk, as an iterator and a context manager.

    Every sample comes once, in order and verified. A lost connection is resumed, and if an attempt at the generation
    breaks off, the stream goes on with the next one from the same frame.
    """

    def __init__(self, thread: LoopThread, inner: AsyncAudioStream) -> None:
        self._thread, self._inner = thread, inner
        self._chunks = thread.iterate(inner)

    def start(self) -> AudioStream:
        """Waits for the first audio, as the first step of an iteration does. Starting twice does nothing."""
        self._thread.run(self._inner.start())
        return self

    @property
    def generation(self) -> Generation | None:
        """The generation; None for a clip, and before the stream has started."""
        inner = self._inner.generation
        return None if inner is None else Generation(self._thread, inner)

    @property
    def header(self) -> AudioHeader:
        """What the server says about the audio. Raises RuntimeError before the stream has started."""
        return self._inner.header

    @property
    def sample_rate(self) -> int:
        """Hz. Raises RuntimeError before the stream has started."""
        return self._inner.sample_rate

    @property
    def channels(self) -> int:
        """1 or 2. Raises RuntimeError before the stream has started."""
        return self._inner.channels

    @property
    def expected_frames(self) -> int | None:
        """Frames of the whole generation, if that is known. Raises RuntimeError before the stream has started."""
        return self._inner.expected_frames

    def __iter__(self) -> AudioStream:
        return self

    def __next__(self) -> AudioChunk:
        return next(self._chunks)

    def close(self) -> None:
        """Stops listening. The generation goes on."""
        self._thread.run(self._inner.aclose())

    def __enter__(self) -> AudioStream:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
