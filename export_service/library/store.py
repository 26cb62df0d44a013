"""The library: finished files under `outputs/YYYY/MM/DD/<generation id>.<extension>`, by the UTC day they landed, and
clips that were uploaded in the same way under `clips/`.

Names come from ids that were checked to be UUIDs; nothing else of a request reaches a path. What is being written lies
in `.landing` beside them, on the same file system as what it becomes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from dgx_music.errors import NotFound, Unavailable
from export_service.formats.codecs import EXTENSIONS
from export_service.formats.tags import COMMENT_PATTERN
from export_service.library.filesystem import disk_errors, make_folder, remove_if_empty, sync_folder
from export_service.library.renders import RenderFolder
from service_runtime.failpoints import failpoint

OUTPUTS, CLIPS = "outputs", "clips"
LANDING = ".landing"
DAYS = "[0-9]*/[0-9]*/[0-9]*"
REMEMBERED_PATHS = 10_000


@dataclass(frozen=True)
class FileFormat:
    """What a finished file holds."""

    sample_rate_hz: int
    channels: int
    frames: int


class Library:
    """The files in one folder of a data directory, which one export process owns; for a clip, read "clip" wherever it
    says "generation". Methods block: call them on a thread.
    """

    def __init__(self, data_dir: Path, folder: str = OUTPUTS) -> None:
        self._data_dir = data_dir
        self._outputs = data_dir / folder
        self._landing = self._outputs / LANDING
        self._landing_lock = threading.Lock()
        self.renders = RenderFolder(data_dir)
        self._paths: dict[str, Path] = {}
        self._paths_lock = threading.Lock()

    def open(self) -> None:
        """Makes the folders and removes what an earlier process did not land."""
        make_folder(self._landing)
        for part in self._landing.glob("*.part"):
            part.unlink()
        self.renders.open()

    def check(self) -> None:
        """Raises OSError where files can't be written."""
        if not os.access(self._outputs, os.W_OK | os.X_OK):
            raise OSError(f"{self._outputs} can't be written to")

    def part(self, generation_id: str, attempt: int) -> Path:
        """Where an attempt's file is written before it lands."""
        return self._landing / f"{generation_id}.{attempt}.part"

    def land(self, part: Path, generation_id: str, extension: str, permit: Callable[[], None]) -> Path:
        """Puts the complete file in place, durably, over an earlier one of the same generation and its renders.

        `permit` is asked right before the name is given, and raises to refuse. Of two attempts the newer one, which
        made the older one's permit void before it began, has the last word.
        """
        failpoint("export.before_fsync")
        with part.open("rb") as file:
            os.fsync(file.fileno())
        failpoint("export.after_fsync")
        with self._landing_lock:
            former = self.find(generation_id)
            path = (former or self._today(generation_id)).with_suffix(extension)
            make_folder(path.parent)
            permit()
            if former is not None:
                self.renders.delete(generation_id)  # Before: what is broken off here leaves none of another file.
            failpoint("export.before_rename")
            os.replace(part, path)
            failpoint("export.after_rename")
            if former is not None:
                for other in EXTENSIONS:  # All: one that was broken off here may have left another one.
                    if other != extension:
                        path.with_suffix(other).unlink(missing_ok=True)
            sync_folder(path.parent)
            self._remember(generation_id, path)
        return path

    @contextmanager
    def unchanged(self, generation_id: str, source: BinaryIO) -> Iterator[None]:
        """Nothing lands or is deleted meanwhile. Raises NotFound where `source` is the generation's file no more."""
        with self._landing_lock:
            path = self.find(generation_id)
            if path is None or not os.path.samestat(path.stat(), os.fstat(source.fileno())):
                raise NotFound("file", generation_id, "it was deleted or made anew meanwhile")
            yield

    def relative(self, path: Path) -> str:
        """As told to others: from the data directory, with forward slashes."""
        return path.relative_to(self._data_dir).as_posix()

    def find(self, generation_id: str) -> Path | None:
        """Where the generation's file is."""
        known = self._paths.get(generation_id)
        if known is not None and known.is_file():
            return known
        self._forget(generation_id)
        for day in sorted(self._outputs.glob(DAYS), reverse=True):  # What is asked for is mostly recent.
            paths = [path for extension in EXTENSIONS if (path := day / f"{generation_id}{extension}").is_file()]
            if paths:
                # More than one where a process ended before it had removed the former one.
                newest = max(paths, key=lambda path: path.stat().st_mtime_ns)
                self._remember(generation_id, newest)
                return newest
        return None

    def attempt(self, generation_id: str) -> int:
        """Which attempt made the generation's file, as the file itself says; 0 without one."""
        path = self.find(generation_id)
        return 0 if path is None else attempt_of(path)

    def delete(self, generation_id: str) -> bool:
        """Removes the generation's file and its renders, durably; whether there was one."""
        with self._landing_lock:
            path = self.find(generation_id)
            if path is None:
                return False
            self.renders.delete(generation_id)
            for extension in EXTENSIONS:
                path.with_suffix(extension).unlink(missing_ok=True)
            sync_folder(path.parent)
            self._forget(generation_id)
        return True

    def delete_render(self, generation_id: str, render_id: str) -> None:
        """Removes one render, durably; raises NotFound."""
        with self._landing_lock:
            self.renders.delete_one(generation_id, render_id)

    def remove_empty_folders(self) -> None:
        """Removes days, months and years that have no file any more."""
        with self._landing_lock:
            for depth in (DAYS, DAYS.rpartition("/")[0], DAYS.partition("/")[0]):
                for folder in self._outputs.glob(depth):
                    remove_if_empty(folder)

    def _today(self, generation_id: str) -> Path:
        return self._outputs / datetime.now(UTC).strftime("%Y/%m/%d") / generation_id

    def _remember(self, generation_id: str, path: Path) -> None:
        with self._paths_lock:
            while len(self._paths) >= REMEMBERED_PATHS:
                del self._paths[next(iter(self._paths))]
            self._paths[generation_id] = path

    def _forget(self, generation_id: str) -> None:
        with self._paths_lock:
            self._paths.pop(generation_id, None)


@contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Raises NotFound where the file is gone by now, Unavailable where it can't be read as audio."""
    import soundfile

    try:
        with disk_errors("reading the file"):
            yield
    except soundfile.LibsndfileError as error:
        if not path.exists():
            raise NotFound("file", path.stem, "it was deleted") from error
        raise Unavailable(
            f"the file of generation {path.stem} can't be read: {error.error_string} It was damaged after it landed",
            reason="FILE_DAMAGED",
        ) from error


def format_of(path: Path) -> FileFormat:
    """What the file at `path` holds."""
    import soundfile

    info = soundfile.info(path)
    return FileFormat(info.samplerate, info.channels, info.frames)


def attempt_of(path: Path) -> int:
    """Which attempt made the file at `path`; 0 where it does not say, or is no audio any more."""
    import soundfile

    try:
        with soundfile.SoundFile(path) as file:
            found = COMMENT_PATTERN.match(file.comment)
    except soundfile.LibsndfileError:
        return 0
    return int(found[2]) if found else 0
