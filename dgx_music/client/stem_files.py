"""Saves the stems of a generation as WAV files: verified and complete, or not at all."""

from __future__ import annotations

import asyncio
import os
import secrets
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import google_crc32c

from dgx_music.errors import DataLoss
from dgx_music.generation.v1.generation_pb2 import StemChunk, StemsHeader, StreamStemsResponse

BYTES_PER_SAMPLE = 4
_FLOAT = 3
"""WAVE_FORMAT_IEEE_FLOAT"""


@dataclass(frozen=True, slots=True)
class Stems:
    """Saved stems."""

    header: StemsHeader
    paths: dict[str, Path]
    """Name of the stem → its file, in the order in which they were sent."""


class StemReader:
    """Receives a stream of stems and verifies it. Its methods raise DataLoss."""

    def __init__(self) -> None:
        self._header: StemsHeader | None = None
        self._frames: list[int] = []
        self._chunks = 0
        self._is_complete = False

    @property
    def header(self) -> StemsHeader:
        """What the stems are. Raises DataLoss if it has not arrived."""
        if self._header is None:
            raise DataLoss("the stream of stems does not begin with a header", reason="STEMS_INVALID")
        return self._header

    @property
    def has_header(self) -> bool:
        return self._header is not None

    def accept(self, response: StreamStemsResponse) -> StemChunk | None:
        """Verifies the next message. Returns the chunk if it is one."""
        match response.WhichOneof("message"):
            case "header":
                names = response.header.names
                is_valid = len(set(names)) == len(names) and 1 <= response.header.channels <= 2
                if self._header is not None or not is_valid:
                    raise DataLoss("the stream of stems has a header that is not valid", reason="STEMS_INVALID")
                self._header = response.header
                self._frames = [0] * len(response.header.names)
            case "chunk":
                self._accept_chunk(response.chunk)
                return response.chunk
            case "end":
                self._is_complete = response.end.total_chunks == self._chunks
        return None

    def finish(self) -> None:
        """Verifies that all frames of all stems have arrived."""
        frames = self.header.total_frames
        if not self._is_complete or any(received != frames for received in self._frames):
            raise DataLoss("the stems ended before they were complete; ask for them again", reason="STEMS_INCOMPLETE")

    def _accept_chunk(self, chunk: StemChunk) -> None:
        frame_bytes = self.header.channels * BYTES_PER_SAMPLE
        is_next = 0 <= chunk.stem < len(self._frames) and chunk.start_frame == self._frames[chunk.stem]
        if not is_next or len(chunk.pcm) % frame_bytes or google_crc32c.value(chunk.pcm) != chunk.crc32c:
            raise DataLoss(
                f"a chunk of the stems at frame {chunk.start_frame} was damaged or out of order on its way",
                reason="STEMS_DAMAGED",
            )
        self._frames[chunk.stem] += len(chunk.pcm) // frame_bytes
        self._chunks += 1


def wav_header(sample_rate_hz: int, channels: int, frames: int) -> bytes:
    """Returns what comes before the samples in a WAV file of 32-bit floats."""
    frame_bytes = channels * BYTES_PER_SAMPLE
    size = frames * frame_bytes
    form = struct.pack(
        "<HHIIHHH", _FLOAT, channels, sample_rate_hz, sample_rate_hz * frame_bytes, frame_bytes, 8 * BYTES_PER_SAMPLE, 0
    )
    chunks = b"".join(
        name + struct.pack("<I", len(data)) + data
        for name, data in ((b"fmt ", form), (b"fact", struct.pack("<I", frames)))
    )
    content = b"WAVE" + chunks + b"data" + struct.pack("<I", size)
    return b"RIFF" + struct.pack("<I", len(content) + size) + content


def stem_paths(header: StemsHeader, folder: Path) -> dict[str, Path]:
    """Returns where each stem is saved: under its name, of which only ASCII letters, digits, spaces, - and _ are
    kept."""
    paths: dict[str, Path] = {}
    for number, name in enumerate(header.names, 1):
        kept = "".join(sign for sign in name if sign.isascii() and (sign.isalnum() or sign in " -_")).strip()
        path = folder / f"{kept}.wav"
        paths[name] = folder / f"{kept} {number}.wav".lstrip() if not kept or path in paths.values() else path
    return paths


async def save_stems(responses: AsyncIterator[StreamStemsResponse], folder: Path, *, overwrite: bool = True) -> Stems:
    """Saves each stem as a WAV file of 32-bit floats in `folder`, which must exist. The files appear together, once all
    are complete.

    Raises DataLoss if they do not arrive completely, FileExistsError if there is such a file and `overwrite` is false,
    and OSError if one can't be written.
    """
    reader = StemReader()
    with ExitStack() as stack:
        files: list[BinaryIO] = []
        paths: dict[str, Path] = {}
        async for response in responses:
            chunk = reader.accept(response)
            if chunk is not None:
                await asyncio.to_thread(files[chunk.stem].write, chunk.pcm)
            elif not files:
                header = reader.header
                paths = stem_paths(header, folder)
                if not overwrite and (taken := next((path for path in paths.values() if path.exists()), None)):
                    raise FileExistsError(taken)
                start = wav_header(header.sample_rate_hz, header.channels, header.total_frames)
                for path in paths.values():
                    files.append(stack.enter_context(_part_of(path)))
                    files[-1].write(start)
        reader.finish()
        for file in files:
            await asyncio.to_thread(file.close)
        for path, file in zip(paths.values(), files, strict=True):
            await asyncio.to_thread(os.replace, file.name, path)
    return Stems(reader.header, paths)


@contextmanager
def _part_of(path: Path) -> Iterator[BinaryIO]:
    """Opens a new file beside `path`, and deletes it if it has not been renamed."""
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with open(part, "wb") as file:
            yield file
    finally:
        part.unlink(missing_ok=True)
