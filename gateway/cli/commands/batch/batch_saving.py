"""Saves the files of a batch, and recognizes those that an earlier run has saved."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable
from itertools import count
from pathlib import Path, PurePosixPath

from dgx_music.storage.v1.storage_pb2 import Generation
from gateway.cli.commands.files_export import save_under_name
from gateway.cli.session.command_errors import CommandError
from gateway.cli.session.files.name_template import NameTemplate
from gateway.cli.session.files.output_files import download
from gateway.cli.session.runner import Session
from gateway.file_names import file_name


async def save_at(session: Session, generation: Generation, path: Path, *, overwrite: bool) -> Path:
    """Saves the finished file at this path, unless it is there already. Raises CommandError if another file is."""
    if not await asyncio.to_thread(_prepare, path, generation, overwrite):
        await download(session, generation.id, path)
    return path


async def save_in_folder(session: Session, generation: Generation, folder: Path, template: NameTemplate) -> Path:
    """Saves the finished file in this folder under a name from the template, unless it is there already."""
    suffix = PurePosixPath(generation.file_path).suffix
    text = template.format(generation)
    names = (file_name(text, suffix, generation.id, number) for number in count(1))
    saved = await asyncio.to_thread(_find_saved, folder, names, generation)
    if saved is None:
        saved, _ = await save_under_name(session, generation, folder, template)
    return saved


def conflict(path: Path) -> CommandError:
    """Returns the error for a path that another file has."""
    return CommandError(f"output: {path} already exists with other content; use --force to overwrite it")


def _prepare(path: Path, generation: Generation, overwrite: bool) -> bool:
    """Returns whether the file is there already."""
    if _is_saved(path, generation):
        return True
    if path.exists() and not overwrite:
        raise conflict(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return False


def _find_saved(folder: Path, names: Iterable[str], generation: Generation) -> Path | None:
    for name in names:
        path = folder / name
        if not path.exists():
            return None
        if _is_saved(path, generation):
            return path
    return None


def _is_saved(path: Path, generation: Generation) -> bool:
    """Returns whether the file is what the server has, by its size and hash, without downloading that."""
    if not path.is_file() or path.stat().st_size != generation.file_size_bytes:
        return False
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    return found == generation.metadata.fields["file_sha256"].string_value
