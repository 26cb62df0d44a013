"""Reads what a DAW session needs to know of a WAV file, and writes 24-bit WAV files."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np
import numpy.typing as npt

from dgx_music.errors import DataLoss

CHUNK = struct.Struct("<4sI")
FORMAT = struct.Struct("<HHIIHH")
"""Kind, channels, sample rate, bytes per second, bytes per frame, bits per sample."""
CUE_POINT = struct.Struct("<II4sIII")
"""Id, position, chunk, chunk start, block start, and the frame in the chunk."""
MAX_TEXT_CHUNK_BYTES = 1 << 20
"""Chunks with markers are smaller; a larger one is not read."""
PCM, BYTES_PER_SAMPLE = 1, 3
FULL_SCALE = 1 << 23
LARGE = 0xFFFF_FFFF
"""The size of `data` in RF64 files, whose real size is in the chunk `ds64`."""


@dataclass(frozen=True)
class WavInfo:
    """What the header and the markers of a file say."""

    sample_rate_hz: int
    channels: int
    frames: int
    cues: tuple[tuple[int, str], ...]
    """Frame and label of each cue point, in the order of time."""


def read_wav(path: Path) -> WavInfo:
    """Reads the header of a WAV or RF64 file. Raises DataLoss if it is none, and OSError."""
    layout: tuple[int, int, int] | None = None
    frames = 0
    positions: dict[int, int] = {}
    labels: dict[int, str] = {}
    with open(path, "rb") as file:
        if (head := file.read(12))[:4] not in (b"RIFF", b"RF64") or head[8:] != b"WAVE":
            raise DataLoss(f"{path.name} is not a WAV file", reason="DAMAGED_FILE")
        long_bytes = 0
        for name, size in _chunks(file):
            if name == b"ds64":
                long_bytes = struct.unpack("<Q", file.read(16)[8:])[0]
            elif name == b"fmt ":
                _, channels, rate, _, frame_bytes, _ = FORMAT.unpack(file.read(FORMAT.size))
                layout = rate, channels, frame_bytes
            elif name == b"data" and layout is not None:
                data_bytes = long_bytes if size == LARGE else size
                frames = data_bytes // max(layout[2], 1)
            elif name == b"cue " and size <= MAX_TEXT_CHUNK_BYTES:
                points = file.read(size)[4:]
                for start in range(0, len(points) - CUE_POINT.size + 1, CUE_POINT.size):
                    identifier, *_, frame = CUE_POINT.unpack_from(points, start)
                    positions[identifier] = frame
            elif name == b"LIST" and size <= MAX_TEXT_CHUNK_BYTES:
                labels |= _labels(file.read(size))
    if layout is None or not frames:
        raise DataLoss(f"{path.name} is incomplete: it has no samples", reason="DAMAGED_FILE")
    cues = sorted((frame, labels.get(identifier, "")) for identifier, frame in positions.items() if frame < frames)
    return WavInfo(layout[0], layout[1], frames, tuple(cues))


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Yields name and size of each chunk, with the file at its content."""
    while len(head := file.read(CHUNK.size)) == CHUNK.size:
        name, size = CHUNK.unpack(head)
        start = file.tell()
        yield name, size
        if name == b"data" and size == LARGE:
            return  # What follows the samples of an RF64 file is not needed.
        file.seek(start + size + size % 2)


def _labels(content: bytes) -> dict[int, str]:
    """Returns the labels of cue points by their ids."""
    found: dict[int, str] = {}
    if content[:4] != b"adtl":
        return found
    position = 4
    while position + CHUNK.size <= len(content):
        name, size = CHUNK.unpack_from(content, position)
        body = content[position + CHUNK.size :][:size]
        if name == b"labl" and len(body) > 4:
            found[struct.unpack_from("<I", body)[0]] = body[4:].split(b"\0")[0].decode("utf-8", "replace")
        position += CHUNK.size + size + size % 2
    return found


def read_samples(path: Path, info: WavInfo) -> npt.NDArray[np.float32]:
    """Returns all samples of a 24-bit WAV file: [frames, channels]."""
    with open(path, "rb") as file:
        file.read(12)
        for name, _ in _chunks(file):
            if name == b"data":
                data = np.frombuffer(file.read(info.frames * info.channels * BYTES_PER_SAMPLE), dtype=np.uint8)
                break
        else:
            raise DataLoss(f"{path.name} is incomplete: it has no samples", reason="DAMAGED_FILE")
    padded = np.zeros((len(data) // BYTES_PER_SAMPLE, 4), dtype=np.uint8)
    padded[:, 1:] = data.reshape(-1, BYTES_PER_SAMPLE)
    values = padded.view("<i4")[:, 0] >> 8
    return (values / np.float32(FULL_SCALE)).astype(np.float32).reshape(-1, info.channels)


class WavWriter:
    """Writes a 24-bit WAV file, block by block. Samples beyond full scale are clipped, and not dithered: 24 bits are
    finer than any converter.
    """

    def __init__(self, path: Path, sample_rate_hz: int, channels: int) -> None:
        self._file = open(path, "wb")  # noqa: SIM115
        self._rate, self._channels = sample_rate_hz, channels
        self.frames = 0
        self._file.write(self._header())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def write(self, samples: npt.NDArray[np.float32]) -> None:
        """Adds frames: [frames, channels]."""
        # Full scale is a power of two, so 32-bit floats are exact. Copying byte by byte is much faster than by frames.
        scaled = np.rint(np.asarray(samples, dtype=np.float32) * np.float32(FULL_SCALE))
        np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1, out=scaled)
        wide = np.ascontiguousarray(scaled.astype("<i4")).view(np.uint8).reshape(-1, 4)
        packed = np.empty((len(wide), BYTES_PER_SAMPLE), dtype=np.uint8)
        for byte in range(BYTES_PER_SAMPLE):
            packed[:, byte] = wide[:, byte]
        self._file.write(packed.data)
        self.frames += len(samples)

    def close(self) -> None:
        """Completes the header and closes the file."""
        if self._file.closed:
            return
        if self.frames * self._channels % 2:
            self._file.write(b"\0")
        self._file.seek(0)
        self._file.write(self._header())
        self._file.close()

    def _header(self) -> bytes:
        frame_bytes = self._channels * BYTES_PER_SAMPLE
        size = self.frames * frame_bytes
        layout = FORMAT.pack(
            PCM, self._channels, self._rate, self._rate * frame_bytes, frame_bytes, 8 * BYTES_PER_SAMPLE
        )
        body = b"WAVE" + CHUNK.pack(b"fmt ", len(layout)) + layout + CHUNK.pack(b"data", size)
        return CHUNK.pack(b"RIFF", len(body) + size + size % 2) + body
