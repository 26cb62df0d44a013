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
from service_runtime.file_modes import limit_umask
from tests.support.command_line import InProcessShell, Shell

pytestmark = pytest.mark.slow

PRIVATE = re.compile(r"(run|spool|backups|[a-z]+/\.landing)(/.*)?|dgx_music\.db.*")
"""What only the owner may use, in any case. The rest of a data directory is the library."""


@pytest.fixture
def shell(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> InProcessShell:
    return InProcessShell(tmp_path / "data", capfd)


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


@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_no_command_opens_what_it_writes(shell: InProcessShell, tmp_path: Path, mask: int) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    elsewhere.mkdir()
    home.mkdir(mode=0o700)
    settings = {
        "DGX_MUSIC_CONFIG": str(home / "dgx-music" / "config.toml"),
        "DGX_MUSIC_AUDIT_LOG": str(elsewhere / "audit.log"),
    }
    with umask(mask):
        limit_umask()  # As each process of a command does.
        shell.run("config", "set", "service_token", "s" * 40, DGX_MUSIC_CONFIG=settings["DGX_MUSIC_CONFIG"])
        copy, picture = elsewhere / "copy.flac", elsewhere / "wave.png"
        [made] = shell.generations(
            "generate", "house", "-d", "0.5", "--seed", "1", "--format", "flac", "-o", str(copy), **settings
        )
        shell.run("files", "import", str(copy), **settings)
        shell.run("files", "tag", made.id, "--title", "Private", **settings)
        shell.run("render", made.id, "--format", "mp3", "-o", str(elsewhere / "copy.mp3"), **settings)
        shell.run("variations", made.id, "--count", "1", **settings)
        shell.run("show", made.id, "--png", str(picture), **settings)
        shell.run("files", "export", "--all", "--to", str(elsewhere / "exported"), **settings)
        shell.run("tls", "init", "--host", "localhost", **settings)
        shell.run("tls", "init", "--host", "localhost", str(elsewhere / "tls"), **settings)
        shell.run("token", "create", "laptop", **settings)
        shell.run("db", "backup", **settings)
        shell.run("db", "backup", str(elsewhere / "backup.db"), **settings)
        shell.run("db", "vacuum", **settings)
        shell.run("db", "check", "--files", **settings)
        shell.run("delete", made.id, "--yes", **settings)
    public = {path for path in (shell.data_dir / "tls", elsewhere / "tls") for path in path.glob("*.pem")}
    assert len(public) == 6  # Certificates, which are shown to everyone.
    private = {path.relative_to(tmp_path).as_posix(): mode(path) for path in _written(tmp_path) if path not in public}
    for folder in (shell.data_dir, home):
        assert {
            name: oct(bits) for name, bits in private.items() if name.startswith(folder.name) and bits & 0o077
        } == {}
    secret = {"elsewhere/audit.log", "elsewhere/backup.db", *(n for n in private if n.startswith("elsewhere/tls"))}
    assert secret < private.keys()
    assert {name: oct(private[name]) for name in secret if private[name] & 0o077} == {}
    assert {name: oct(bits) for name, bits in private.items() if bits & (mask | 0o027)} == {}


def _written(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name not in ("hub", "elsewhere")]


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
