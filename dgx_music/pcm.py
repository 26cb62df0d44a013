"""PCM framing: every audio stream is a header, chunks, and an end with totals (`protos/dgx_music/audio/v1`).

`PcmWriter` splits samples into chunks and computes the totals; `PcmReader` verifies a stream that it receives.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import google_crc32c

from dgx_music.audio.v1 import audio_pb2
from dgx_music.errors import DataLoss, InvalidArgument
from dgx_music.limits import MAX_CHANNELS, MAX_CHUNK_BYTES, MAX_SAMPLE_RATE_HZ, MIN_SAMPLE_RATE_HZ

BYTES_PER_SAMPLE = 4
"""Size of a float32."""


def live_header(
    generation_id: str, attempt: int, sample_rate_hz: int, channels: int, expected_frames: int
) -> audio_pb2.AudioHeader:
    """Returns the header of a stream of samples as the model produces them, before normalization."""
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
    """Splits interleaved little-endian float32 PCM into chunks, and computes the totals for the end of the stream.

    `start_frame` is the generation's frame at which the stream begins.
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
        """Number of frames written so far."""
        return self._bytes // self._frame_bytes

    def chunks(self, pcm: bytes | memoryview) -> Iterator[audio_pb2.AudioChunk]:
        """Yields `pcm`, which must be whole frames, as chunks in order; yields nothing if `pcm` is empty."""
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
        """Returns the end of the stream, with the totals of all chunks."""
        return audio_pb2.AudioEnd(
            total_chunks=self._sequence, total_frames=self.frames, sha256=self._sha256.hexdigest()
        )


class PcmReader:
    """Receives one audio stream and verifies its order, sizes, checksums and totals.

    Raises InvalidArgument if the header is invalid, with its fields named under `field`. The methods raise DataLoss.
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
        """Number of frames received so far."""
        return self._bytes // self._frame_bytes

    @property
    def sha256(self) -> str:
        """SHA-256 of all PCM bytes received so far, in lower-case hex."""
        return self._sha256.hexdigest()

    def accept(self, chunk: audio_pb2.AudioChunk) -> bytes:
        """Verifies that `chunk` is intact and the next in order, and returns its PCM."""
        if chunk.sequence != self._sequence:
            raise _data_loss(f"received chunk {chunk.sequence}, expected chunk {self._sequence}", "CHUNK_OUT_OF_ORDER")
        if self._next_frame is not None and chunk.start_frame != self._next_frame:
            raise _data_loss(
                f"chunk {chunk.sequence} starts at frame {chunk.start_frame}, expected frame {self._next_frame}",
                "CHUNK_OUT_OF_ORDER",
            )
        pcm = chunk.pcm
        if not pcm or len(pcm) % self._frame_bytes or len(pcm) > MAX_CHUNK_BYTES:
            raise _data_loss(
                f"chunk {chunk.sequence} has {len(pcm)} bytes; it must be a multiple of the frame size, "
                f"{self._frame_bytes} bytes, and at most {MAX_CHUNK_BYTES} bytes",
                "CHUNK_SIZE",
            )
        if google_crc32c.value(pcm) != chunk.crc32c:
            raise _data_loss(f"chunk {chunk.sequence} does not match its CRC-32C", "CHUNK_CHECKSUM")
        self._next_frame = chunk.start_frame + len(pcm) // self._frame_bytes
        self._sequence += 1
        self._bytes += len(pcm)
        self._sha256.update(pcm)
        return pcm

    def finish(self, end: audio_pb2.AudioEnd) -> None:
        """Verifies the totals of the stream against the chunks received."""
        received = (self._sequence, self.frames, self.sha256)
        if (end.total_chunks, end.total_frames, end.sha256) != received:
            raise _data_loss(
                f"its end announces {end.total_chunks} chunks, {end.total_frames} frames, SHA-256 {end.sha256[:9]!r}…, "
                f"but received {received[0]} chunks, {received[1]} frames, SHA-256 {received[2][:12]}…",
                "END_MISMATCH",
            )


def _data_loss(message: str, reason: str) -> DataLoss:
    return DataLoss(f"the audio stream is incomplete or corrupt: {message}", reason=reason)
