"""Renders: a finished file once more, in another form, under `renders/<generation id>/<render id>.<extension>`.

Beside each lies `<render id>.json` with its figures, so that who asks again is told the same.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from dgx_music.errors import NotFound
from export_service.dsp.normalization import LoudnessTarget
from export_service.formats.codecs import EXTENSIONS
from export_service.library.filesystem import make_folder, remove_if_empty, sync_folder
from export_service.library.mastered_file import Finished
from service_runtime.audio.output_options import FileFormat
from service_runtime.failpoints import failpoint

RENDERS = "renders"
LANDING = ".landing"
FIGURES = TypeAdapter(Finished)


@dataclass(frozen=True)
class RenderOptions:
    """What a render is, nothing left open."""

    format: FileFormat
    sample_rate_hz: int
    channels: int
    aim: LoudnessTarget

    def render_id(self, generation_id: str) -> str:
        """UUID (RFC 9562, version 5): the same for the same options."""
        named = (self.format, self.sample_rate_hz, self.channels, self.aim.target_lufs, self.aim.ceiling_dbtp)
        return str(uuid.uuid5(uuid.UUID(generation_id), " ".join(map(str, named))))


@dataclass(frozen=True)
class Render:
    """A render in the library."""

    render_id: str
    path: Path
    finished: Finished


class RenderFolder:
    """The renders of one data directory. Methods block: call them on a thread."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir / RENDERS
        self._landing = self._folder / LANDING

    def open(self) -> None:
        """Makes the folder and removes what an earlier process did not land."""
        make_folder(self._landing)
        for part in self._landing.glob("*.part"):
            for figures in self._folder.glob(f"*/{part.stem}.json"):  # They were put in place first.
                figures.unlink()
            part.unlink()

    def part(self, render_id: str) -> Path:
        """Where a render is written before it lands."""
        return self._landing / f"{render_id}.part"

    def find(self, generation_id: str, render_id: str) -> Path:
        """Where the render is; raises NotFound."""
        for extension in EXTENSIONS:
            path = self._folder / generation_id / f"{render_id}{extension}"
            if path.is_file():
                return path
        raise NotFound("render", render_id, f"generation {generation_id} has none of this id: ask for it by Render")

    def made_before(self, generation_id: str, render_id: str) -> Render | None:
        """The render with its figures; None where it is not there, or its figures are another version's."""
        try:
            path = self.find(generation_id, render_id)
            return Render(render_id, path, FIGURES.validate_json(path.with_suffix(".json").read_bytes()))
        except (NotFound, FileNotFoundError, ValueError):
            return None

    def land(self, part: Path, generation_id: str, render_id: str, extension: str, finished: Finished) -> Path:
        """Puts the complete render in place, durably; its figures first, so that none is without."""
        path = self._folder / generation_id / f"{render_id}{extension}"
        figures = part.with_suffix(".json.part")
        try:
            figures.write_bytes(FIGURES.dump_json(finished))
            failpoint("export.before_render_fsync")
            for written in (figures, part):
                with written.open("rb") as file:
                    os.fsync(file.fileno())
            failpoint("export.after_render_fsync")
            make_folder(path.parent)
            os.replace(figures, path.with_suffix(".json"))
            failpoint("export.before_render_rename")
            os.replace(part, path)
            failpoint("export.after_render_rename")
            sync_folder(path.parent)
        except OSError:
            path.with_suffix(".json").unlink(missing_ok=True)
            raise
        finally:
            figures.unlink(missing_ok=True)
        return path

    def of(self, generation_id: str) -> Iterator[tuple[str, Path, str]]:
        """The generation's renders: id, file, and its SHA-256 when it landed; empty where no figures tell that."""
        for path in sorted((self._folder / generation_id).glob("*")):
            if path.suffix in EXTENSIONS:
                render = self.made_before(generation_id, path.stem)
                yield path.stem, path, "" if render is None else render.finished.file_sha256

    def delete_one(self, generation_id: str, render_id: str) -> None:
        """Removes the render and its figures; raises NotFound."""
        path = self.find(generation_id, render_id)
        path.with_suffix(".json").unlink(missing_ok=True)  # First: without its render nobody would find it.
        path.unlink()
        sync_folder(path.parent)
        remove_if_empty(path.parent)

    def delete(self, generation_id: str) -> None:
        """Removes all renders of the generation."""
        folder = self._folder / generation_id
        if folder.is_dir():
            shutil.rmtree(folder)
            sync_folder(self._folder)
