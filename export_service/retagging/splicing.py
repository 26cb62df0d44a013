"""A changed copy of a file: new bytes, and spans of the old file, in the order of the copy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

COPY_BYTES = 1 << 20


@dataclass(frozen=True)
class Span:
    """Bytes of the old file that the copy takes over."""

    start: int
    end: int
    """The byte after the last one."""

    def __len__(self) -> int:
        return self.end - self.start


Piece = bytes | Span


@dataclass(frozen=True)
class Patch:
    """Bytes that overwrite others in the copy, such as a size."""

    position: int
    data: bytes


@dataclass(frozen=True)
class Layout:
    """What a copy consists of."""

    pieces: Iterable[Piece]
    patches: tuple[Patch, ...] = ()

    def write(self, source: BinaryIO, destination: BinaryIO) -> None:
        """Writes the copy of `source`. Memory use does not grow with the file. Raises OSError."""
        for block in iter_bytes(source, self.pieces):
            destination.write(block)
        for patch in self.patches:
            destination.seek(patch.position)
            destination.write(patch.data)


def iter_bytes(source: BinaryIO, pieces: Iterable[Piece]) -> Iterator[bytes]:
    """Yields the bytes of the copy, a mebibyte at a time. Raises OSError, and EOFError if the source is too short."""
    for piece in pieces:
        if isinstance(piece, bytes):
            yield piece
            continue
        source.seek(piece.start)
        left = len(piece)
        while left:
            block = source.read(min(left, COPY_BYTES))
            if not block:
                raise EOFError(f"the file ends {left} bytes before byte {piece.end}")
            left -= len(block)
            yield block
