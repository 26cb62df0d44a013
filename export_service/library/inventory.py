"""What lies in the library: outputs, clips and renders, in an order that goes on where a page ended.

Outputs come first, then clips, each by the day they landed, newest first; then renders by their generation. Methods
block: call them on a thread.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from dgx_music.errors import InvalidArgument
from export_service.formats.codecs import CODECS, EXTENSIONS
from export_service.library.renders import RENDERS
from export_service.library.store import CLIPS, DAYS, OUTPUTS
from service_runtime.audio.output_options import FileFormat
from service_runtime.rpc.paging import Page


class Kind(StrEnum):
    """What a file of the library is; the value is its folder."""

    OUTPUT = OUTPUTS
    CLIP = CLIPS
    RENDER = RENDERS


FOLDERS = {Kind.OUTPUT: DAYS, Kind.CLIP: DAYS, Kind.RENDER: "*-*"}
"""Where under the kind's folder its files lie: by day, or by generation."""


@dataclass(frozen=True)
class LibraryFile:
    """One file, as the folder knows it."""

    kind: Kind
    path: Path
    size_bytes: int
    modified_at: datetime
    """When an output landed; when a clip or a render landed or was last used."""

    @property
    def generation_id(self) -> str:
        """Of the generation, or of the clip."""
        return self.path.parent.name if self.kind is Kind.RENDER else self.path.stem

    @property
    def render_id(self) -> str:
        """Empty for what is no render."""
        return self.path.stem if self.kind is Kind.RENDER else ""


@dataclass(frozen=True)
class Contents:
    """What a file holds, as its header says."""

    format: FileFormat
    sample_rate_hz: int
    channels: int
    frames: int


class Inventory:
    """The files of one data directory."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir

    def files(self, kinds: Iterable[Kind] = (), after: str = "") -> Iterator[LibraryFile]:
        """The files of these kinds, all for none; with `after`, those behind that path from the data directory.

        Looks at one folder at a time. What lands meanwhile may be left out, what is deleted meanwhile is.
        """
        wanted = set(kinds) or set(Kind)
        passed = _position(after)
        for kind in Kind:
            if kind not in wanted or (kind_at := list(Kind).index(kind)) < passed[0]:
                continue
            for folder in sorted((self.data_dir / kind).glob(FOLDERS[kind]), reverse=True):
                name = folder.relative_to(self.data_dir / kind).as_posix()
                here = kind_at == passed[0] and name == passed[1]
                if kind_at == passed[0] and passed[1] and name > passed[1]:
                    continue
                yield from _files_in(kind, folder, before=passed[2] if here else "")

    def page(self, kinds: Sequence[Kind], page: Page) -> tuple[list[LibraryFile], str]:
        """The page's files, and the token of the next, empty on the last. Raises InvalidArgument for a bad token."""
        bound_to = hashlib.sha256(",".join(sorted(kinds)).encode()).hexdigest()[:16]
        limit, found = page.limit, list[LibraryFile]()
        for file in self.files(kinds, _read(page.token, bound_to) if page.token else ""):
            if len(found) == limit:
                last = found[-1].path.relative_to(self.data_dir).as_posix()
                return found, base64.urlsafe_b64encode(json.dumps([bound_to, last]).encode()).decode()
            found.append(file)
        return found, ""


def file_at(kind: Kind, path: Path) -> LibraryFile | None:
    """The file at `path` as it is now; None where it is gone."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return LibraryFile(kind, path, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))


def contents(path: Path) -> Contents | None:
    """What the file's header says; None where it is gone, or no audio any more."""
    import soundfile

    try:
        info = soundfile.info(path)
    except soundfile.LibsndfileError:
        return None
    container = "WAV" if info.format in ("RF64", "WAVEX") else info.format
    for file_format, form in CODECS.items():
        if (form.container, form.subtype) == (container, info.subtype):
            return Contents(file_format, info.samplerate, info.channels, info.frames)
    return None


def _files_in(kind: Kind, folder: Path, before: str) -> Iterator[LibraryFile]:
    """By name, last first, from the one before `before` on."""
    try:
        paths = sorted(folder.iterdir(), reverse=True)
    except FileNotFoundError:
        return
    for path in paths:
        if path.suffix in EXTENSIONS and not (before and path.name >= before):
            file = file_at(kind, path)
            if file is not None:
                yield file


def _position(path: str) -> tuple[int, str, str]:
    """Which kind, which folder and which name a path has; before all of them for none."""
    if not path:
        return -1, "", ""
    kind, _, rest = path.partition("/")
    folder, _, name = rest.rpartition("/")
    return list(Kind).index(Kind(kind)), folder, name


def _read(token: str, bound_to: str) -> str:
    """The path that the page before ended with."""
    try:
        token_bound_to, path = json.loads(base64.urlsafe_b64decode(token))
        _position(path)
    except (ValueError, TypeError, AttributeError, binascii.Error) as error:
        raise InvalidArgument(
            "page_token", "is not one that this list gave; leave it empty for the first page"
        ) from error
    if token_bound_to != bound_to:
        raise InvalidArgument("page_token", "belongs to a list of other kinds; send the same kinds with each page")
    return str(path)
