"""`dgx-music files export`: complete copies under readable names, without overwriting anything."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import uuid
from pathlib import Path

import pytest

from dgx_music.errors import InvalidArgument
from dgx_music.storage.v1 import storage_pb2 as storage
from gateway.cli.commands import files_export
from gateway.cli.commands.files_export import Selection, create_folder, export_files
from gateway.cli.display.console import Console
from gateway.cli.session.command_errors import CommandError
from gateway.cli.session.files.name_template import NameTemplate
from gateway.cli.session.runner import Session
from tests.support.command_line import InProcessShell
from tests.support.embedded_services import EmbeddedServices
from tests.support.library_files import RATE, completed
from tests.support.printed_output import Captured, printed, session_for

SECONDS = 60.0
NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def session(library_services: EmbeddedServices, tmp_path: Path) -> Session:
    return session_for(library_services, tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return create_folder(tmp_path / "deep" / "exports")


async def export(session: Session, folder: Path, selection: Selection, name: str = "{prompt}", status: int = 0) -> None:
    assert await export_files(session, Console(), selection, folder, NameTemplate(name, "--name")) == status


async def test_files_are_named_and_never_overwritten(
    library_services: EmbeddedServices, session: Session, tmp_path: Path, folder: Path, capsys: Captured
) -> None:
    prompts = ("AC/DC?", "ac_dc_", "con", "AC/DC?")
    made = [await completed(library_services, prompt=prompt) for prompt in prompts]
    (folder / "AC_DC_.wav").write_text("mine")
    capsys.readouterr()
    ids = [made[0].id, made[1].id.upper(), made[2].id, made[0].id]
    await export(session, folder, Selection(ids))
    names = ["AC_DC_ (2).wav", "ac_dc_ (3).wav", "_con.wav"]
    assert printed(capsys).splitlines() == [str(folder / name) for name in names]
    for name, generation in zip(names, made, strict=False):
        assert (folder / name).read_bytes() == (tmp_path / generation.file_path).read_bytes()

    await export(session, folder, Selection())
    assert sorted(os.listdir(folder)) == sorted([*names, "AC_DC_.wav", "AC_DC_ (4).wav"])
    assert "files: 1 exported, 3 already there\n" in capsys.readouterr().err
    assert (folder / "AC_DC_.wav").read_text() == "mine"


async def test_selection_by_rating_and_text(
    library_services: EmbeddedServices, session: Session, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_export, "MAX_PAGE_SIZE", 1)
    made = [await completed(library_services, prompt=prompt) for prompt in ("piano 1", "piano 2", "drums")]
    for generation, rating in zip(made, (5, 3, 4), strict=True):
        request = storage.RateGenerationRequest(id=generation.id, rating=rating)
        await library_services.music.RateGeneration(request, timeout=SECONDS)
    for chosen, expected in (
        (Selection(min_rating=4, search="PIANO"), ["piano 1 5.wav"]),
        (Selection(min_rating=4), ["drums 4.wav", "piano 1 5.wav"]),
        (Selection(search="nothing"), ["drums 4.wav", "piano 1 5.wav"]),
        (Selection(), ["drums 4.wav", "piano 1 5.wav", "piano 2 3.wav"]),
    ):
        await export(session, folder, chosen, "{prompt} {rating}")
        assert sorted(os.listdir(folder)) == expected


async def test_what_has_no_file_is_reported_and_the_others_are_exported(
    library_services: EmbeddedServices, session: Session, tmp_path: Path, folder: Path, capsys: Captured
) -> None:
    lost, sound = [await completed(library_services) for _ in range(2)]
    (tmp_path / lost.file_path).unlink()
    request = storage.CreateGenerationRequest(
        prompt="waits", model_name="x", duration_seconds=1, sample_rate_hz=RATE, channels=1
    )
    waiting = (await library_services.storage.CreateGeneration(request, timeout=SECONDS)).generation
    capsys.readouterr()
    await export(session, folder, Selection([lost.id, waiting.id, NOBODY, sound.id]), status=1)
    errors = capsys.readouterr().err
    assert f"error: there is no file '{lost.id}'" in errors
    assert f"error: generation {waiting.id} is pending and has no file\n" in errors
    assert f"error: there is no generation '{NOBODY}'" in errors
    assert errors.endswith("files: 1 exported, 3 failed\n")
    assert os.listdir(folder) == ["techno.wav"]


async def test_json_lists_files(
    library_services: EmbeddedServices, session: Session, folder: Path, capsys: Captured
) -> None:
    made = await completed(library_services)
    for is_new in (True, False):
        capsys.readouterr()
        template = NameTemplate("x", "--name")
        assert await export_files(session, Console(as_json=True), Selection(), folder, template) == 0
        [line] = printed(capsys).splitlines()
        assert json.loads(line) == {"generation_id": made.id, "path": str(folder / "x.wav"), "is_new": is_new}


async def test_concurrent_exports_into_one_folder(
    library_services: EmbeddedServices, session: Session, tmp_path: Path, folder: Path
) -> None:
    made = [await completed(library_services) for _ in range(4)]
    await asyncio.gather(*(export(session, folder, Selection([one.id]), name) for one in made for name in ("a", "A")))
    await asyncio.gather(*(export(session, folder, Selection(), "a") for _ in range(2)))
    contents = [path.read_bytes() for path in folder.iterdir()]
    assert sorted(contents) == sorted((tmp_path / one.file_path).read_bytes() for one in made)
    assert len({path.name.lower() for path in folder.iterdir()}) == len(made)


@pytest.mark.parametrize("call", ["open", "link"])
async def test_full_disk_ends_the_command_and_leaves_nothing(
    library_services: EmbeddedServices, session: Session, folder: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    [_, made] = [await completed(library_services) for _ in range(2)]

    def fill(path: object, *arguments: object) -> None:
        if str(path).startswith(str(folder)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if call == "link":
        monkeypatch.setattr(os, "link", fill)
    else:
        from gateway.cli.session.files import output_files

        monkeypatch.setattr(output_files, "open", fill, raising=False)
    with pytest.raises(CommandError, match=f"failed to write to {folder}: No space left on device"):
        await export(session, folder, Selection([NOBODY, made.id, made.id]))
    assert os.listdir(folder) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--to", "out"], "choose what to export"),
        (["--all", NOBODY, "--to", "out"], "choose what to export"),
        (["x", "--to", "out"], "ID: must be a UUID"),
        (["--all"], "Missing option '--to'"),
        (["--all", "--to", "out", "--name", "{titel}"], "--name: {titel} is not a field; the fields are date,"),
        (["--all", "--to", "taken"], "--to: taken is not a folder"),
        (["--all", "--to", "taken/below"], "--to: failed to create the folder taken/below: Not a directory"),
        (["--all", "--to", "out", "--min-rating", "6"], "--min-rating"),
    ],
)
def test_bad_arguments_are_rejected_before_anything_is_written(
    shell: InProcessShell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("taken").touch()
    assert says in shell.error("files", "export", *arguments, status=2)
    assert os.listdir(tmp_path) == ["taken"]


def test_generated_files_are_exported_by_their_music(shell: InProcessShell, tmp_path: Path) -> None:
    arguments = ("techno at 130 BPM in A minor", "-d", "0.5", "--seed", "7", "--format", "flac")
    [made] = shell.generations("generate", *arguments)
    name, target = "{prompt:.6} {bpm:.0f} {key} {seed}", tmp_path / "[b]:smile: out"
    done = shell.run("files", "export", made.id, "--to", str(target), "--name", name)
    assert done.stdout == f"{target}/techno 130 A minor 7.flac\n"
    assert (target / "techno 130 A minor 7.flac").read_bytes() == (shell.data_dir / made.file_path).read_bytes()
    assert shell.run("files", "export", "--min-rating", "1", "--to", str(target)).stderr == "files: none\n"


def test_selection_checks_every_id() -> None:
    Selection([str(uuid.uuid4()), NOBODY]).check()
    with pytest.raises(InvalidArgument, match="UUID"):
        Selection([NOBODY, "x"]).check()
