"""Lists the library's files in an order that lets a list continue where the previous page ended.

Outputs come first, then clips, each by the day they were added, newest first; then renders, by generation id.
Functions and methods block: call them in a thread.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from dgx_music.errors import FailedPrecondition, InvalidArgument
from export_service.formats.codecs import CODECS, EXTENSIONS
from export_service.formats.m4a_file import DamagedFileError
from export_service.formats.reader import open_sequential
from export_service.library.regular_files import UUID_NAME, iter_day_folders, iter_folders, lstat_or_none
from export_service.library.renders import RENDERS
from export_service.library.store import CLIPS, OUTPUTS
from service_runtime.audio.output_options import FileFormat
from service_runtime.rpc.paging import Page


class FileKind(StrEnum):
    """The kind of a file in the library. Its value is the name of the folder."""

    OUTPUT = OUTPUTS
    CLIP = CLIPS
    RENDER = RENDERS


KINDS = list(FileKind)
"""All kinds, in the order of the list."""


@dataclass(frozen=True)
class LibraryFile:
    """A file in the library, as its directory entry describes it."""

    kind: FileKind
    path: Path
    size_bytes: int
    modified_at: datetime
    """When an output was added, or when a clip or a render was last used."""

    @property
    def generation_id(self) -> str:
        """Id of the generation, or of the clip."""
        return self.path.parent.name if self.kind is FileKind.RENDER else self.path.stem

    @property
    def day(self) -> str:
        """The UTC day on which an output was added, as "YYYY-MM-DD"."""
        year, month, day = self.path.parts[-4:-1]
        return f"{year}-{month}-{day}"

    @property
    def render_id(self) -> str:
        """Id of the render; empty for other kinds."""
        return self.path.stem if self.kind is FileKind.RENDER else ""


@dataclass(frozen=True)
class AudioInfo:
    """Format and length of an audio file, as its header describes them."""

    format: FileFormat
    sample_rate_hz: int
    channels: int
    frames: int


class Inventory:
    """Lists the files of one data directory."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir

    def iter_files(self, kinds: Iterable[FileKind] = (), after: str = "") -> Iterator[LibraryFile]:
        """Yields the files of these kinds, or of all kinds if none are given.

        With `after`, a path relative to the data directory, yields only the files that come after it. Reads one folder
        at a time: a file that is added meanwhile may be missing from the list, one that is deleted meanwhile is.
        """
        wanted = set(kinds) or set(KINDS)
        after_kind, after_folder, after_name = _parse_position(after)
        for index, kind in enumerate(KINDS):
            if kind not in wanted or index < after_kind:
                continue
            for folder in self._iter_folders(kind):
                name = folder.relative_to(self.data_dir / kind).as_posix()
                if index == after_kind and after_folder and name > after_folder:
                    continue
                is_current = index == after_kind and name == after_folder
                yield from _iter_folder(kind, folder, before=after_name if is_current else "")

    def _iter_folders(self, kind: FileKind) -> Iterator[Path]:
        """Yields the folders that hold the files of a kind: one for each day, or one for each generation."""
        folder = self.data_dir / kind
        return iter_folders(folder, UUID_NAME) if kind is FileKind.RENDER else iter_day_folders(folder)

    def list_page(self, kinds: Sequence[FileKind], page: Page) -> tuple[list[LibraryFile], str]:
        """Returns the page's files and the token of the next page, "" on the last one.

        Raises InvalidArgument if the page size is not valid, or if the token is not from a list of the same kinds.
        """
        query_hash = hash_kinds(kinds)
        limit, files = page.limit, list[LibraryFile]()
        for file in self.iter_files(kinds, decode_page_token(page.token, query_hash) if page.token else ""):
            if len(files) == limit:
                return files, encode_page_token(files[-1].path.relative_to(self.data_dir).as_posix(), query_hash)
            files.append(file)
        return files, ""


def stat_file(kind: FileKind, path: Path) -> LibraryFile | None:
    """Returns the current state of the file at `path`, or None if it no longer exists."""
    status = lstat_or_none(path)
    if status is None or not stat.S_ISREG(status.st_mode):
        return None
    return LibraryFile(kind, path, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))


def read_audio_info(path: Path) -> AudioInfo | None:
    """Reads the file's header. Returns None if the file no longer exists, cannot be read, or needs PyAV and that is not
    installed.
    """
    try:
        with open_sequential(path, header_only=True) as file:
            container = "WAV" if file.format in ("RF64", "WAVEX") else file.format
            for file_format, codec in CODECS.items():
                if (codec.container, codec.subtype) == (container, file.subtype):
                    return AudioInfo(file_format, file.samplerate, file.channels, file.frames)
    except (OSError, DamagedFileError, FailedPrecondition):
        return None
    return None


def _iter_folder(kind: FileKind, folder: Path, before: str) -> Iterator[LibraryFile]:
    """Yields the folder's files in descending order of their names, starting below the name `before` if given."""
    try:
        paths = sorted(folder.iterdir(), reverse=True)
    except (FileNotFoundError, PermissionError):
        return
    for path in paths:
        is_ours = path.suffix in EXTENSIONS and UUID_NAME.fullmatch(path.stem)
        if is_ours and not (before and path.name >= before):
            file = stat_file(kind, path)
            if file is not None:
                yield file


def _parse_position(path: str) -> tuple[int, str, str]:
    """Splits a path into the index of its kind, its folder and its name. "" is the position before all files."""
    if not path:
        return -1, "", ""
    kind, _, rest = path.partition("/")
    folder, _, name = rest.rpartition("/")
    return KINDS.index(FileKind(kind)), folder, name


def hash_kinds(kinds: Sequence[FileKind]) -> str:
    """Returns what the tokens of one list have in common."""
    return hashlib.sha256(",".join(sorted(kinds)).encode()).hexdigest()[:16]


MAX_TOKEN_CHARACTERS = 500
"""More than any has. Lists in lists by the thousand would be too deep for the parser."""


def encode_page_token(last_path: str, query_hash: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([query_hash, last_path]).encode()).decode()


def decode_page_token(token: str, query_hash: str) -> str:
    """Returns the path with which the previous page ended. Raises InvalidArgument."""
    try:
        token_query_hash, path = json.loads(base64.urlsafe_b64decode(token[:MAX_TOKEN_CHARACTERS]))
        if not isinstance(path, str):
            raise TypeError("not a path")
        _parse_position(path)
    except (ValueError, TypeError, AttributeError, binascii.Error) as error:
        raise InvalidArgument(
            "page_token", "is not a token from this list; leave it empty to get the first page"
        ) from error
    if token_query_hash != query_hash:
        raise InvalidArgument(
            "page_token", "is from a list of other kinds; send the same kinds with every page of a list"
        )
    return path
