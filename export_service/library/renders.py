"""Renders: copies of an exported file in another format or at another loudness, at
`renders/<generation id>/<render id>.<extension>`.

`<render id>.json` beside each render describes it, so that a repeated request gets the same answer.
"""

from __future__ import annotations

import json
import os
import uuid
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from dgx_music.errors import NotFound
from export_service.dsp.normalization import LoudnessTarget
from export_service.formats.codecs import CODECS, EXTENSIONS
from export_service.library.filesystem import (
    compute_sha256,
    fsync_folder,
    make_folder,
    make_private_folder,
    remove_if_empty,
    widen_folders,
)
from export_service.library.manifests import manifest_path, move_staged, move_staged_manifest, seal_staged
from export_service.library.mastered_file import MasteredFile
from export_service.library.regular_files import (
    UUID_NAME,
    is_regular_file,
    iter_folders,
    remove_leftover,
    require_no_link,
)
from service_runtime.audio.output_options import NO_PUBLICATION, FileFormat, PublicationTags
from service_runtime.failpoints import failpoint
from service_runtime.file_modes import PRIVATE, FileModes, set_mode
from service_runtime.observability.logging import get_logger

log = get_logger(__name__)

RENDERS = "renders"
STAGING = ".landing"
MASTERED_FILE_JSON = TypeAdapter(MasteredFile)


@dataclass(frozen=True)
class RenderSpec:
    """Everything that determines a render, with all defaults resolved."""

    format: FileFormat
    sample_rate_hz: int
    channels: int
    target: LoudnessTarget
    bit_rate_kbps: int = 0
    quality: float | None = None
    publication: PublicationTags = NO_PUBLICATION
    """Replaces those of the source that it gives."""

    def render_id(self, generation_id: str) -> str:
        """Returns the render's id, a UUID (RFC 9562, version 5): the same for equal specs of one generation."""
        values = (self.format, self.sample_rate_hz, self.channels, self.target.target_lufs, self.target.ceiling_dbtp)
        name = " ".join(map(str, values))
        added = (self.bit_rate_kbps, self.quality, *vars(self.publication).values())
        if added != (0, None, "", "", ""):  # So that ids from before these fields existed remain the same.
            name += json.dumps(added)
        return str(uuid.uuid5(uuid.UUID(generation_id), name))


@dataclass(frozen=True)
class Render:
    """A render in the library."""

    render_id: str
    path: Path
    file: MasteredFile


class RenderStore:
    """The renders of one data directory. Methods block: call them in a thread."""

    def __init__(self, data_dir: Path, modes: FileModes = PRIVATE) -> None:
        self._modes = modes
        self._folder = data_dir / RENDERS
        self._staging = self._folder / STAGING

    def open(self) -> None:
        """Creates the folder, completes commits that a crash interrupted, and removes other incomplete renders that an
        earlier process left.
        """
        make_folder(self._folder, self._modes.folder)
        make_private_folder(self._staging)
        widen_folders([self._folder, *iter_folders(self._folder, UUID_NAME)], self._modes)
        parts = defaultdict[str, list[Path]](list)
        for part in self._staging.glob("*.part"):
            parts[part.name.partition(".")[0]].append(part)
        for render_id, staged in parts.items():
            try:
                for folder in iter_folders(self._folder, UUID_NAME):
                    if is_regular_file(description := folder / f"{render_id}.json"):
                        self._recover(self.staging_path(render_id), description)
            except OSError as error:
                # One file that can't be read must not keep the service from starting. A later start tries again.
                log.warning("render_not_recovered", render_id=render_id, error=str(error))
                continue
            for part in staged:
                remove_leftover(part)

    def _recover(self, staged: Path, description: Path) -> None:
        """Completes a commit if its description is in place, which is renamed first."""
        file = _read_description(description)
        if file is None:
            return
        path = description.with_suffix(CODECS[file.format].extension)
        if not staged.exists():
            move_staged_manifest(staged, path)
        elif compute_sha256(staged) == file.file_sha256:
            move_staged(staged, path)
        elif not path.exists():
            description.unlink()
        fsync_folder(path.parent)

    def staging_path(self, render_id: str) -> Path:
        """Returns the path to write a render to before it is committed."""
        return self._staging / f"{render_id}.part"

    def find(self, generation_id: str, render_id: str) -> Path:
        """Returns the render's path. Raises NotFound."""
        folder = self._folder / generation_id
        if not folder.is_symlink():
            for extension in EXTENSIONS:
                if is_regular_file(path := folder / f"{render_id}{extension}"):
                    return path
        raise NotFound(
            "render", render_id, f"generation {generation_id} has no render with this id; create it with Render"
        )

    def load(self, generation_id: str, render_id: str) -> Render | None:
        """Returns the render, or None if it does not exist or its description is from an incompatible version."""
        try:
            path = self.find(generation_id, render_id)
        except NotFound:
            return None
        file = _read_description(path.with_suffix(".json"))
        return None if file is None else Render(render_id, path, file)

    def commit(self, staged: Path, generation_id: str, render_id: str, extension: str, file: MasteredFile) -> Path:
        """Moves the complete render into the library, durably, over an earlier version of it, and returns its path.

        Its description is renamed first, so that no render is without one; after a crash in between, `open` moves the
        render. Raises OSError, and then leaves an earlier version as it was.
        """
        path = self._folder / generation_id / f"{render_id}{extension}"
        description, previous = staged.with_suffix(".json.part"), staged.with_suffix(".previous.part")
        is_described = False
        try:
            _write_new(description, MASTERED_FILE_JSON.dump_json(file, by_alias=True))
            failpoint("export.before_render_fsync")
            set_mode(description, self._modes.file)
            with description.open("rb") as opened:
                os.fsync(opened.fileno())
            seal_staged(staged, self._modes.file)
            failpoint("export.after_render_fsync")
            require_no_link(self._folder, path.parent)
            make_folder(path.parent, self._modes.folder)
            if is_regular_file(path.with_suffix(".json")):
                _write_new(previous, path.with_suffix(".json").read_bytes())
            os.replace(description, path.with_suffix(".json"))
            is_described = True
            failpoint("export.before_render_rename")
            move_staged(staged, path)
            failpoint("export.after_render_rename")
            fsync_folder(path.parent)
        except OSError:
            if is_described and staged.exists() and previous.exists():
                os.replace(previous, path.with_suffix(".json"))
            elif is_described and staged.exists():
                path.with_suffix(".json").unlink(missing_ok=True)
            raise
        finally:
            remove_leftover(description)
            remove_leftover(previous)
        return path

    def iter_renders(self, generation_id: str) -> Iterator[tuple[str, Path, str]]:
        """Yields id, path and original SHA-256 of the generation's renders; "" if the description is missing."""
        folder = self._folder / generation_id
        for path in [] if folder.is_symlink() else sorted(folder.glob("*")):
            if path.suffix in EXTENSIONS and is_regular_file(path):
                render = self.load(generation_id, path.stem)
                yield path.stem, path, "" if render is None else render.file.file_sha256

    def delete(self, generation_id: str, render_id: str) -> None:
        """Deletes one render and its description. Raises NotFound."""
        path = self.find(generation_id, render_id)
        # First: nothing would find these once the render is gone.
        path.with_suffix(".json").unlink(missing_ok=True)
        manifest_path(path).unlink(missing_ok=True)
        path.unlink()
        fsync_folder(path.parent)
        remove_if_empty(path.parent)

    def delete_all(self, generation_id: str) -> None:
        """Deletes all renders of the generation."""
        folder = self._folder / generation_id
        if folder.is_symlink():
            folder.unlink()
            fsync_folder(self._folder)
        elif folder.is_dir():
            # All at once: a crash must not leave a render without its description.
            deleted = self._staging / f"{generation_id}.part"
            remove_leftover(deleted)
            os.rename(folder, deleted)
            try:
                fsync_folder(self._folder)
            finally:
                remove_leftover(deleted)


def _write_new(path: Path, content: bytes) -> None:
    """Writes a file in place of one that an earlier commit left, and never through a link."""
    path.unlink(missing_ok=True)
    with path.open("xb") as file:
        file.write(content)


def _read_description(path: Path) -> MasteredFile | None:
    """Returns None if there is no description, or if it is from an incompatible version."""
    try:
        return MASTERED_FILE_JSON.validate_json(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
