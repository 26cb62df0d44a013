"""Manifests beside their files: the Content Credentials of a file in whose format they can't be embedded, at the same
path with the extension `.c2pa`, where C2PA tools look for them.

A manifest is there only while the file is, and never beside another version of it: it is deleted before the file, and
written after it. A crash in between leaves a file without its manifest.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePath
from typing import TypeVar

from dgx_music.errors import NotFound
from export_service.formats.provenance import MANIFEST_EXTENSION, staged_manifest_path
from service_runtime.file_modes import set_mode
from service_runtime.observability.logging import get_logger

log = get_logger(__name__)

AnyPath = TypeVar("AnyPath", bound=PurePath)


def manifest_path(path: AnyPath) -> AnyPath:
    """Returns where the manifest of a file in the library is, if it has one."""
    return path.with_suffix(MANIFEST_EXTENSION)


def find_manifest(path: Path) -> Path:
    """Returns the path of the manifest beside a file of the library. Raises NotFound if it has none."""
    manifest = manifest_path(path)
    if not manifest.is_file():
        raise manifest_not_found(path.stem)
    return manifest


def manifest_not_found(file_id: str) -> NotFound:
    """Returns the error of a file that has no manifest beside it."""
    hint = "the file contains it, or was not signed; the field marks of its export says which"
    return NotFound("manifest", file_id, hint)


def seal_staged(staged: Path, mode: int) -> None:
    """Gives a staged file, and its manifest if it has one, these access rights, and makes their contents durable.

    Raises OSError.
    """
    for path in (staged, staged_manifest_path(staged)):
        if path == staged or path.exists():
            set_mode(path, mode)
            with path.open("rb") as file:
                os.fsync(file.fileno())


def move_staged(staged: Path, path: Path) -> None:
    """Moves a staged file, with its manifest if it has one, over the file at `path`. Raises OSError."""
    manifest_path(path).unlink(missing_ok=True)
    os.replace(staged, path)
    move_staged_manifest(staged, path)


def move_staged_manifest(staged: Path, path: Path) -> None:
    """Moves the manifest of a staged file, if it has one, beside the file at `path`. Raises OSError."""
    staged_manifest = staged_manifest_path(staged)
    if staged_manifest.exists():
        os.replace(staged_manifest, manifest_path(path))


def remove_staged(staged: Path) -> None:
    """Removes a staged file and its manifest, as far as they exist.

    Does not raise, which would hide why the file did not land: the next start of the service removes what is left.
    """
    try:
        staged_manifest_path(staged).unlink(missing_ok=True)
        staged.unlink(missing_ok=True)
    except OSError as error:
        log.warning("staged_file_left", file=staged.name, error=str(error))
