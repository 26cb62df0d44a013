"""PCM framing: every stream of audio is a header, chunks, and an end that adds up (`protos/dgx_music/audio/v1`).

`PcmWriter` cuts samples into chunks and closes the stream; `PcmReader` takes one in and refuses what does not add up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import google_crc32c

from dgx_music.audio.v1 import audio_pb2
from dgx_music.errors import DataLoss, InvalidArgument
from dgx_music.limits import MAX_CHANNELS, MAX_CHUNK_BYTES, MAX_SAMPLE_RATE_HZ, MIN_SAMPLE_RATE_HZ

BYTES_PER_SAMPLE = 4
"""float32."""


def live_header(
    generation_id: str, attempt: int, sample_rate_hz: int, channels: int, expected_frames: int
) -> audio_pb2.AudioHeader:
    """The header of a stream of samples as the model makes them."""
    return audio_pb2.AudioHeader(
        generation_id=generation_id,
        attempt=attempt,
        level=audio_pb2.AUDIO_LEVEL_LIVE,
        sample_rate_hz=sample_rate_hz,
        channels=channels,
        encoding=audio_pb2.PCM_ENCODING_FLOAT32_LE,
        expected_frames=expected_frames,
    )


class PcmWriter:
    """Cuts little-endian float32 PCM into chunks, and keeps the figures for the end.

    `start_frame` is the generation's frame that the stream begins with.
    """

    def __init__(self, channels: int, start_frame: int = 0) -> None:
        self._frame_bytes = channels * BYTES_PER_SAMPLE
        self._chunk_bytes = MAX_CHUNK_BYTES // self._frame_bytes * self._frame_bytes
        self._start_frame = start_frame
        self._sequence = 0
        self._bytes = 0
        self._sha256 = hashlib.sha256()

    @property
    def frames(self) -> int:
        """Frames written so far."""
        return self._bytes // self._frame_bytes

    def chunks(self, pcm: bytes | memoryview) -> Iterator[audio_pb2.AudioChunk]:
        """Chunks of whole frames that hold `pcm`, in order; none for no bytes."""
        view = memoryview(pcm)
        for offset in range(0, len(view), self._chunk_bytes):
            data = bytes(view[offset : offset + self._chunk_bytes])
            chunk = audio_pb2.AudioChunk(
                sequence=self._sequence,
                start_frame=self._start_frame + self.frames,
                pcm=data,
                crc32c=google_crc32c.value(data),
            )
            self._sequence += 1
            self._bytes += len(data)
            self._sha256.update(data)
            yield chunk

    def end(self) -> audio_pb2.AudioEnd:
        """The end of the stream as written so far."""
        return audio_pb2.AudioEnd(
            total_chunks=self._sequence, total_frames=self.frames, sha256=self._sha256.hexdigest()
        )


class PcmReader:
    """Takes in one stream of audio and refuses what does not add up.

    Raises InvalidArgument for a header that can't be, DataLoss for everything after it.
    """

    def __init__(self, header: audio_pb2.AudioHeader, field: str = "header") -> None:
        if not MIN_SAMPLE_RATE_HZ <= header.sample_rate_hz <= MAX_SAMPLE_RATE_HZ:
            raise InvalidArgument(
                f"{field}.sample_rate_hz",
                f"must be {MIN_SAMPLE_RATE_HZ} to {MAX_SAMPLE_RATE_HZ}, not {header.sample_rate_hz}",
            )
        if not 1 <= header.channels <= MAX_CHANNELS:
            raise InvalidArgument(f"{field}.channels", f"must be 1 or 2, not {header.channels}")
        if header.encoding != audio_pb2.PCM_ENCODING_FLOAT32_LE:
            raise InvalidArgument(f"{field}.encoding", "must be PCM_ENCODING_FLOAT32_LE")
        if header.expected_frames < 0:
            raise InvalidArgument(f"{field}.expected_frames", "must not be negative")
        self.header = header
        self._frame_bytes = header.channels * BYTES_PER_SAMPLE
        self._next_frame: int | None = None
        self._sequence = 0
        self._bytes = 0
        self._sha256 = hashlib.sha256()

    @property
    def frames(self) -> int:
        """Frames taken in so far."""
        return self._bytes // self._frame_bytes

    @property
    def sha256(self) -> str:
        """SHA-256 of all PCM bytes taken in so far, lower-case hex."""
        return self._sha256.hexdigest()

    def accept(self, chunk: audio_pb2.AudioChunk) -> bytes:
        """The chunk's PCM, once it is proven to be the next one."""
        if chunk.sequence != self._sequence:
            what = "a gap" if chunk.sequence > self._sequence else "a repeat"
            raise _loss(f"{what}: chunk {chunk.sequence} came where {self._sequence} was due", "CHUNK_OUT_OF_ORDER")
        if self._next_frame is not None and chunk.start_frame != self._next_frame:
            raise _loss(
                f"chunk {chunk.sequence} starts at frame {chunk.start_frame}, not {self._next_frame}",
                "CHUNK_OUT_OF_ORDER",
            )
        pcm = chunk.pcm
        if not pcm or len(pcm) % self._frame_bytes or len(pcm) > MAX_CHUNK_BYTES:
            raise _loss(
                f"chunk {chunk.sequence} has {len(pcm)} bytes: must be whole frames of {self._frame_bytes} bytes, "
                f"1 frame to {MAX_CHUNK_BYTES} bytes",
                "CHUNK_SIZE",
            )
        if google_crc32c.value(pcm) != chunk.crc32c:
            raise _loss(f"chunk {chunk.sequence} does not match its crc32c", "CHUNK_CHECKSUM")
        self._next_frame = chunk.start_frame + len(pcm) // self._frame_bytes
        self._sequence += 1
        self._bytes += len(pcm)
        self._sha256.update(pcm)
        return pcm

    def finish(self, end: audio_pb2.AudioEnd) -> None:
        """Checks the end against all that came before it."""
        got = (self._sequence, self.frames, self.sha256)
        if (end.total_chunks, end.total_frames, end.sha256) != got:
            raise _loss(
                f"the end says {end.total_chunks} chunks, {end.total_frames} frames, sha256 {end.sha256[:12]!r}…; "
                f"{got[0]} chunks, {got[1]} frames, {got[2][:12]!r}… came",
                "END_MISMATCH",
            )


def _loss(message: str, reason: str) -> DataLoss:
    return DataLoss(f"the audio stream does not add up: {message}", reason=reason)
