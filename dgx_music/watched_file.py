"""Files that other programs replace while this one runs: tokens, keys and certificates."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


class FileVersion(tuple[int, int, int]):
    """Inode, time of change in nanoseconds and size of a file: different for each version of it."""


def read_versions(paths: Iterable[str | Path]) -> tuple[FileVersion | None, ...]:
    """Returns the version of each file; None for one that is not there or can't be reached."""
    return tuple(_read_version(Path(path)) for path in paths)


def _read_version(path: Path) -> FileVersion | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return FileVersion((status.st_ino, status.st_mtime_ns, status.st_size))


class WatchedFile:
    """The content of a text file, read again when it changes. After a first reading, a failed one keeps the content."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path).expanduser()
        self._version: FileVersion | None = None
        self._content: str | None = None

    def read(self) -> str:
        """Returns the content without the white space around it. Raises OSError if it never could be read, and
        UnicodeDecodeError if it is not text."""
        version = _read_version(self._path)
        if self._content is None or (version is not None and version != self._version):
            try:
                self._content, self._version = self._path.read_text().strip(), version
            except (OSError, UnicodeDecodeError):
                if self._content is None:
                    raise
        return self._content
