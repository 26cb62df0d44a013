"""A zip archive of a folder that is sent while it is written, so that it needs neither memory nor disk."""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

BLOCK_BYTES = 1 << 18
DATE = (1980, 1, 1, 0, 0, 0)
"""Of each entry: the same takes give the same archive."""


async def stream_zip(folder: Path, root: str) -> AsyncGenerator[bytes, None]:
    """Yields an archive with the files of the folder, below a folder `root`. Audio hardly gets smaller, so that nothing
    is compressed. The files are read in a thread."""
    blocks = _zip(folder, root)
    try:
        while (block := await asyncio.to_thread(next, blocks, None)) is not None:
            if block:
                yield block
    finally:
        blocks.close()


class _Sink(io.RawIOBase):
    """Keeps what is written until it is taken."""

    def __init__(self) -> None:
        self._written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        view = memoryview(data)  # type: ignore[arg-type]  # Whatever zipfile writes is bytes.
        self._written += view
        return len(view)

    def take(self) -> bytes:
        taken = bytes(self._written)
        self._written.clear()
        return taken


def _zip(folder: Path, root: str) -> Generator[bytes, None, None]:
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(one for one in folder.rglob("*") if one.is_file()):
            entry = zipfile.ZipInfo(f"{root}/{path.relative_to(folder).as_posix()}", DATE)
            entry.external_attr = 0o644 << 16
            with path.open("rb") as file, archive.open(entry, "w", force_zip64=True) as target:
                while data := file.read(BLOCK_BYTES):
                    target.write(data)
                    yield sink.take()
    yield sink.take()
