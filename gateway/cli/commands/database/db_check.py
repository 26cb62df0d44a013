"""`dgx-music db check`: checks the rows of the database, the audio files that they refer to, and all other files."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from export_service.library.store import OUTPUTS
from gateway.cli.commands.database import completed_file_check, stray_file_check
from gateway.cli.commands.database.suspects import Suspect
from gateway.embedded.ownership import has_owner
from storage_service.db.database import Database
from storage_service.maintenance.backup import snapshot
from storage_service.maintenance.file_records import find_shared_paths
from storage_service.maintenance.integrity import Finding, find_violations

SETTLE_SECONDS = 2.0
"""How long a problem with a file must persist while a server runs: between two of its steps there may be one."""

MAX_LOOKS = 5
"""How often a file is looked at that is different each time. It is then in use, and nothing is reported."""


def find_problems(
    database: Database,
    data_dir: Path,
    *,
    read_files: bool,
    settle_seconds: float = SETTLE_SECONDS,
    library_url: str = "",
) -> Iterator[Finding]:
    """Yields all problems in the database, and with the files if the library is on this machine or, with
    `library_url`, in object storage.

    With `read_files`, each file is read completely and compared with the SHA-256 recorded when it was written. Servers
    may be running; a problem with a file then has to persist for `settle_seconds`.
    """
    with snapshot(database) as moment:
        is_damaged = False
        for finding in find_violations(moment):
            is_damaged |= finding.where == "database"
            yield finding
        if is_damaged or not (library_url or (data_dir / OUTPUTS).is_dir()):
            return
        for path in find_shared_paths(moment):
            yield Finding(f"file {path}", "belongs to more than one generation")
    if library_url:
        yield from _check_objects(database, library_url, settle_seconds, read_files=read_files)
        return
    yield from _check_folders(database, data_dir, settle_seconds, read_files=read_files)


def _check_objects(database: Database, url: str, settle_seconds: float, *, read_files: bool) -> Iterator[Finding]:
    from export_service.objects.bucket import Bucket
    from gateway.cli.commands.database.object_file_check import ObjectFileCheck

    check = ObjectFileCheck(database, Bucket(url), read_files=read_files)
    yield from _confirm(check.find_suspects(), lambda _: check.find_suspects(), settle_seconds)


def _check_folders(database: Database, data_dir: Path, settle_seconds: float, *, read_files: bool) -> Iterator[Finding]:
    with snapshot(database) as moment:
        completed = completed_file_check.find_suspects(moment, data_dir, read_files=read_files)
    pause = settle_seconds if has_owner(data_dir) else 0.0
    yield from _confirm(
        completed, lambda ids: completed_file_check.look_again(database, data_dir, ids, read_files=read_files), pause
    )
    yield from _confirm(
        stray_file_check.find_suspects(database, data_dir, read_files=read_files),
        lambda _: stray_file_check.find_suspects(database, data_dir, read_files=read_files),
        pause,
    )


def _confirm(
    suspects: Mapping[str, Suspect], look_again: Callable[[Collection[str]], Mapping[str, Suspect]], pause: float
) -> Iterator[Finding]:
    """Yields the finding of each suspect that is the same at two looks in succession."""
    for _ in range(MAX_LOOKS):
        if not suspects:
            return
        time.sleep(pause)
        again = look_again(suspects)
        yield from (one.finding for key, one in suspects.items() if again.get(key) == one)
        suspects = {key: again[key] for key, one in suspects.items() if key in again and again[key] != one}
