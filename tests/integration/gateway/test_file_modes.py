"""Access rights of everything that commands and a server create, under any umask."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from google.protobuf import json_format

from dgx_music.storage.v1 import storage_pb2 as storage
from tests.support.command_line import InProcessShell, Shell

PRIVATE = re.compile(r"(run|spool|backups|[a-z]+/\.landing)(/.*)?|dgx_music\.db.*")
"""What only the owner may use, in any case. The rest of a data directory is the library."""


@contextmanager
def umask(mask: int) -> Iterator[None]:
    """The umask of this process, which the processes that it starts inherit."""
    previous = os.umask(mask)
    try:
        yield
    finally:
        os.umask(previous)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def wrong_modes(data_dir: Path, *, group_readable: bool) -> dict[str, str]:
    """Returns the paths whose access rights are not those of their kind."""
    wrong = {}
    for path in (data_dir, *data_dir.rglob("*")):
        name = path.relative_to(data_dir).as_posix()
        is_open = group_readable and not PRIVATE.fullmatch(name)
        allowed = {0o750 if is_open else 0o700} if path.is_dir() else {0o640 if is_open else 0o600}
        if path.is_socket():
            allowed.add(0o700)
        if ".landing/" in name:
            allowed.add(0o640)  # No one else gets into the folder.
        if mode(path) not in allowed:
            wrong[name] = oct(mode(path))
    return wrong


@pytest.mark.parametrize(("mask", "group_readable"), [(0o000, False), (0o077, True)])
def test_data_directory_is_private_whatever_the_umask(
    shell: InProcessShell, tmp_path: Path, mask: int, group_readable: bool
) -> None:
    copy = tmp_path / "copy.wav"
    with umask(mask), shell.serving(DGX_MUSIC_GROUP_READABLE=str(group_readable)):
        [made] = Shell(shell.data_dir).generations("generate", "house", "-d", "0.5", "-o", str(copy))
        shell.run("render", made.id, "--format", "flac")
        shell.run("db", "backup")
        [long] = shell.generations("generate", "house", "-d", "3600", "--detach")
        with shell.running("watch", long.id, "--json") as watch:
            assert watch.stdout is not None
            for line in watch.stdout:
                if json_format.Parse(line, storage.Generation()).progress:
                    break
            spooled = [path.name for path in (shell.data_dir / "spool").iterdir() if long.id in path.name]
            wrong = wrong_modes(shell.data_dir, group_readable=group_readable)
            shell.run("cancel", long.id)
    assert spooled == [f"{long.id}.1.pcm.part"]
    assert wrong == {}
    assert mode(copy) == 0o666 & ~(mask | 0o027)
    assert list(shell.data_dir.glob("backups/*.db"))
    assert list(shell.data_dir.glob("renders/*/*.flac"))


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_data_directory_of_embedded_services_is_private(shell: InProcessShell, mask: int) -> None:
    with umask(mask):
        shell.run("generate", "house", "-d", "0.5")
    assert wrong_modes(shell.data_dir, group_readable=False) == {}


def test_open_data_directory_of_earlier_version_is_closed_except_for_audio(shell: InProcessShell) -> None:
    [made] = shell.generations("generate", "house", "-d", "0.5")
    for path in shell.data_dir.rglob("*"):
        path.chmod(0o777 if path.is_dir() else 0o666)
    shell.run("files", "list")
    private = [
        path for path in shell.data_dir.rglob("*") if PRIVATE.fullmatch(path.relative_to(shell.data_dir).as_posix())
    ]
    assert {path.name: oct(mode(path)) for path in private if path.is_dir() and mode(path) != 0o700} == {}
    assert mode(shell.data_dir / "dgx_music.db") == 0o600
    assert mode(shell.data_dir / made.file_path) == 0o666


def test_library_that_becomes_group_readable_can_be_reached(shell: InProcessShell) -> None:
    [before] = shell.generations("generate", "house", "-d", "0.5")
    shell.run("render", before.id, "--format", "flac")
    [after] = shell.generations("generate", "house", "-d", "0.5", DGX_MUSIC_GROUP_READABLE="true")
    file = shell.data_dir / after.file_path
    assert mode(file) == 0o640
    folders = [*file.relative_to(shell.data_dir).parents, Path("renders", before.id)]
    assert {mode(shell.data_dir / folder) for folder in folders} == {0o750}
    assert mode(shell.data_dir / before.file_path) == 0o600
