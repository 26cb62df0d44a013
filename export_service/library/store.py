"""The library: exported files at `outputs/YYYY/MM/DD/<generation id>.<extension>`, by the UTC day on which they were
added, and uploaded clips at `clips/` in the same layout.

File names are built from ids that have been validated as UUIDs; no other part of a request reaches a path. Files are
written to `.landing` first, on the same file system, and renamed when they are complete.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO, NoReturn

from dgx_music.errors import NotFound, Unavailable
from export_service.formats.codecs import EXTENSIONS
from export_service.formats.m4a_file import DamagedFileError
from export_service.formats.reader import open_sequential
from export_service.library.filesystem import (
    folder_has_no_urls,
    fsync_folder,
    make_folder,
    make_private_folder,
    mark_used,
    remove_if_empty,
    translate_disk_errors,
    widen_folders,
)
from export_service.library.manifests import find_manifest, manifest_path, move_staged, seal_staged
from export_service.library.mastered_file import MasteredFile
from export_service.library.regular_files import (
    LocalFile,
    file_id,
    is_regular_file,
    iter_day_folders,
    remove_leftover,
    require_no_link,
)
from export_service.library.renders import STAGING, Render, RenderStore
from export_service.tagging.containers import read_comment
from export_service.tagging.tags import COMMENT_PATTERN
from service_runtime.failpoints import failpoint
from service_runtime.file_modes import PRIVATE, FileModes

OUTPUTS, CLIPS = "outputs", "clips"
SPOOL = "spool"
"""The folder of samples as generated, see `streaming/spool.py`. It is not part of the library."""
DEPTHS = 3, 2, 1
"""Of the folders of days, months and years."""
MAX_CACHED_PATHS = 10_000


@dataclass(frozen=True)
class AudioProperties:
    """Sample rate, channel count and length of an audio file."""

    sample_rate_hz: int
    channels: int
    frames: int


class Library:
    """The files in one folder of a data directory, owned by a single export process.

    In the folder of clips, a `generation_id` is the id of a clip. Methods block: call them in a thread.
    """

    def __init__(self, data_dir: Path, folder: str = OUTPUTS, modes: FileModes = PRIVATE) -> None:
        self._data_dir = data_dir
        self._modes = modes
        self._folder = data_dir / folder
        self._staging = self._folder / STAGING
        self._commit_lock = threading.Lock()
        self.renders = RenderStore(data_dir, modes)
        self._cached_paths: dict[str, Path] = {}
        self._cache_lock = threading.Lock()

    def open(self) -> None:
        """Creates the folders and removes incomplete files that an earlier process left."""
        make_folder(self._folder, self._modes.folder)
        make_private_folder(self._staging)
        days = (folder for depth in DEPTHS for folder in iter_day_folders(self._folder, depth))
        widen_folders([self._data_dir, self._folder, *days], self._modes)
        for staged in self._staging.glob("*.part"):
            remove_leftover(staged)
        self.renders.open()

    def check(self) -> None:
        """Raises OSError if files can't be written."""
        for folder in (self._folder, self._staging):
            if not os.access(folder, os.W_OK | os.X_OK):
                raise OSError(f"{folder} is not writable")

    def staging_path(self, generation_id: str, attempt: int) -> Path:
        """Returns the path to write an attempt's file to before it is committed."""
        return self._staging / f"{generation_id}.{attempt}.part"

    def commit(self, staged: Path, generation_id: str, extension: str, check_permitted: Callable[[], None]) -> Path:
        """Moves the complete file into the library, durably, and returns its path. Replaces an earlier file of the
        same generation and deletes that file's renders.

        `check_permitted` is called right before the rename and raises to veto it. If two attempts race, the newer one
        wins: it has the older one vetoed before it begins itself.
        """
        failpoint("export.before_fsync")
        seal_staged(staged, self._modes.file)
        failpoint("export.after_fsync")
        with self._commit_lock:
            previous = self.find(generation_id)
            path = (previous or self._path_for_today(generation_id)).with_suffix(extension)
            require_no_link(self._folder, path.parent)
            make_folder(path.parent, self._modes.folder)
            check_permitted()
            if previous is not None:
                # Before the rename: a crash in between must not leave renders of another file.
                self.renders.delete_all(generation_id)
            failpoint("export.before_rename")
            move_staged(staged, path)
            failpoint("export.after_rename")
            if previous is not None:
                # All extensions, because a crash at this point may have left a third file.
                for other in EXTENSIONS:
                    if other != extension:
                        path.with_suffix(other).unlink(missing_ok=True)
            fsync_folder(path.parent)
            self._cache_path(generation_id, path)
        return path

    def replace(self, staged: Path, generation_id: str, source: BinaryIO) -> None:
        """Moves an edited copy of the open file `source` to its place, durably. Readers of the old file can read it to
        its end. Raises OSError, and NotFound if `source` is no longer the generation's file.
        """
        seal_staged(staged, self._modes.file)
        with self.lock_unchanged(generation_id, source) as path:
            failpoint("export.before_edit_rename")
            move_staged(staged, path)
            failpoint("export.after_edit_rename")
            fsync_folder(path.parent)

    def replace_render(self, staged: Path, generation_id: str, source: BinaryIO, render: Render) -> None:
        """Like `replace`, with the render and its new description."""
        with self.lock_unchanged(generation_id, source, render.render_id):
            self.renders.commit(staged, generation_id, render.render_id, render.path.suffix, render.file)

    def add_render(
        self, staged: Path, generation_id: str, source: BinaryIO, render_id: str, extension: str, file: MasteredFile
    ) -> Path:
        """Moves a complete render of the open file `source` into the library, durably, and returns its path.

        Raises OSError, and NotFound if `source` is no longer the generation's file.
        """
        with self.lock_unchanged(generation_id, source):
            return self.renders.commit(staged, generation_id, render_id, extension, file)

    @contextmanager
    def lock_unchanged(self, generation_id: str, source: BinaryIO, render_id: str = "") -> Iterator[Path]:
        """Prevents commits and deletions while the block runs, and yields the path of `source`.

        Raises NotFound if the open file `source` is no longer the generation's file, or this render of it.
        """
        with self._commit_lock:
            path = self.renders.find(generation_id, render_id) if render_id else self.find(generation_id)
            if path is None or not os.path.samestat(path.stat(), os.fstat(source.fileno())):
                raise file_replaced(render_id or generation_id)
            yield path

    def relative_path(self, path: Path) -> str:
        """Returns the path relative to the data directory, with forward slashes."""
        return path.relative_to(self._data_dir).as_posix()

    def manifest_path(self, path: Path, sha256: str) -> str:
        """Returns the relative path of the manifest beside a file, if it has one."""
        return self.relative_path(manifest_path(path))

    def find(self, generation_id: str) -> Path | None:
        """Returns the path of the generation's file, or None if there is none."""
        cached = self._cached_paths.get(generation_id)
        if cached is not None and is_regular_file(cached):
            return cached
        self._uncache_path(generation_id)
        for day in iter_day_folders(self._folder):  # Most requests are for recent files.
            names = (day / f"{generation_id}{extension}" for extension in EXTENSIONS)
            if paths := [path for path in names if is_regular_file(path)]:
                # There are several if a process crashed before it had removed the replaced file.
                newest = max(paths, key=lambda path: path.stat().st_mtime_ns)
                self._cache_path(generation_id, newest)
                return newest
        return None

    def locate(self, generation_id: str) -> Path:
        """Returns the path of the generation's file. Raises NotFound, and errors of the disk."""
        with translate_disk_errors("searching the library"):
            path = self.find(generation_id)
        if path is None:
            raise file_not_found(generation_id)
        return path

    def find_attempt(self, generation_id: str) -> int:
        """Returns the number of the attempt that the generation's file is from; 0 if there is none that may be read."""
        path = self.find(generation_id)
        try:
            return 0 if path is None else read_attempt(path)
        except PermissionError:
            return 0

    def open_file(self, generation_id: str, render_id: str = "", *, manifest: bool = False) -> LocalFile | None:
        """Opens the generation's file, a render of it, or the manifest beside it; None if there is no file.

        Raises NotFound if there is no such render or no manifest, or if the file has just been deleted.
        """
        path = self.renders.find(generation_id, render_id) if render_id else self.find(generation_id)
        if path is None:
            return None
        if render_id or self._folder.name == CLIPS:
            mark_used(path)
        return LocalFile(find_manifest(path) if manifest else path)

    def sign_url(self, generation_id: str, render_id: str, expires: timedelta) -> NoReturn:
        """Raises FailedPrecondition: only object storage has URLs."""
        raise folder_has_no_urls()

    def delete(self, generation_id: str) -> bool:
        """Deletes the generation's file and its renders, durably. Returns whether there was a file."""
        with self._commit_lock:
            path = self.find(generation_id)
            if path is None:
                return False
            self.renders.delete_all(generation_id)
            manifest_path(path).unlink(missing_ok=True)
            for extension in EXTENSIONS:
                path.with_suffix(extension).unlink(missing_ok=True)
            fsync_folder(path.parent)
            self._uncache_path(generation_id)
        return True

    def delete_render(self, generation_id: str, render_id: str) -> None:
        """Deletes one render, durably. Raises NotFound."""
        with self._commit_lock:
            self.renders.delete(generation_id, render_id)

    def remove_empty_folders(self) -> None:
        """Removes the folders of days, months and years that have become empty."""
        with self._commit_lock:
            for depth in DEPTHS:
                for folder in list(iter_day_folders(self._folder, depth)):
                    remove_if_empty(folder)

    def _path_for_today(self, generation_id: str) -> Path:
        return self._folder / datetime.now(UTC).strftime("%Y/%m/%d") / generation_id

    def _cache_path(self, generation_id: str, path: Path) -> None:
        with self._cache_lock:
            while len(self._cached_paths) >= MAX_CACHED_PATHS:
                del self._cached_paths[next(iter(self._cached_paths))]
            self._cached_paths[generation_id] = path

    def _uncache_path(self, generation_id: str) -> None:
        with self._cache_lock:
            self._cached_paths.pop(generation_id, None)


def file_not_found(generation_id: str) -> NotFound:
    """Returns the error of a generation or clip that has no file."""
    return NotFound("file", generation_id, "it was never exported, or it was deleted")


def file_replaced(file_id: str) -> NotFound:
    """Returns the error of a file that is no longer the one that was opened. `file_id` is that of its name."""
    return NotFound("file", file_id, "it was deleted or replaced in the meantime")


@contextmanager
def translate_file_errors(path: Path) -> Iterator[None]:
    """Translates errors of reading `path`: NotFound if it no longer exists, Unavailable if it is damaged."""
    with translate_disk_errors("reading the file"):
        try:
            yield
        except (FileNotFoundError, DamagedFileError) as error:
            if not path.exists():
                raise NotFound("file", file_id(path), "it was deleted") from error
            raise Unavailable(
                f"the file of generation {file_id(path)} is damaged and can't be read: {error}",
                reason="FILE_DAMAGED",
            ) from error


def read_audio_properties(path: Path) -> AudioProperties:
    """Reads the file's header. Raises the same errors as `open_sequential`."""
    with open_sequential(path, header_only=True) as file:
        return AudioProperties(file.samplerate, file.channels, file.frames)


def read_attempt(path: Path) -> int:
    """Reads from the file's comment tag which attempt it is from; 0 if the file has no such tag or is damaged."""
    found = COMMENT_PATTERN.match(read_comment(path))
    return int(found[2]) if found else 0
