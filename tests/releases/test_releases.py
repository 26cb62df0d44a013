"""What a user of an earlier version has, written by that version's commands: today's open it, migrate it and go on."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from storage_service.db import schema
from tests.releases.write_release import postgres_tools
from tests.support.command_line import InProcessShell, read_until
from tests.support.processes import free_ports

ROOT = Path(__file__).parents[2]
VERSIONS = sorted(file.parent.name for file in Path(__file__).parent.glob("*/release.json"))
COMPATIBLE_SINCE = "0.1.0"
"""The first release whose contracts clients may rely on."""


@dataclass
class Release:
    """The data of a release, in a folder of the test's own."""

    folder: Path
    data: Path
    facts: dict[str, Any]

    @property
    def needs_migration(self) -> bool:
        return bool(self.facts["revision"] != schema.REVISIONS[-1])

    def of_state(self, state: str) -> list[dict[str, Any]]:
        return [one for one in self.facts["generations"].values() if one["state"] == f"GENERATION_STATE_{state}"]


# What the current version itself wrote is read in many other tests.
@pytest.fixture(
    params=[pytest.param(one, marks=pytest.mark.slow if one == version("dgx-music") else ()) for one in VERSIONS]
)
def release(request: pytest.FixtureRequest, tmp_path: Path) -> Release:
    folder = Path(__file__).parent / request.param
    with tarfile.open(folder / "data.tar.gz") as tar:
        if hasattr(tarfile, "data_filter"):  # Since Python 3.11.4.
            tar.extraction_filter = staticmethod(tarfile.data_filter)
        tar.extractall(tmp_path)
    return Release(folder, tmp_path, json.loads((folder / "release.json").read_text()))


@pytest.fixture
def shell(release: Release, capfd: pytest.CaptureFixture[str]) -> InProcessShell:
    return InProcessShell(release.data / "sqlite", capfd)


@pytest.fixture
def postgres_url(request: pytest.FixtureRequest) -> Iterator[str]:
    from tests.support.postgres import scratch_database

    with scratch_database(request.getfixturevalue("postgres")) as url:
        yield url


def migrate(shell: InProcessShell, release: Release, **settings: str) -> None:
    """Migrates the database; where that is needed, every command says so before."""
    if release.needs_migration:
        assert "run `dgx-music db migrate`" in shell.error("history", status=1, **settings)
    shell.run("db", "migrate", **settings)
    shell.run("files", "stats", **settings)  # Starts export, which removes what a killed one has left.
    shell.run("db", "check", "--files", **settings)


def show(shell: InProcessShell, generation_id: str) -> dict[str, Any]:
    [shown] = shell.generations("show", generation_id)
    return json_format.MessageToDict(shown, preserving_proto_field_name=True)


def test_data_directory_is_migrated_and_goes_on(release: Release, shell: InProcessShell, tmp_path: Path) -> None:
    facts = release.facts
    migrate(shell, release)
    for before in facts["generations"].values():
        after = show(shell, before["id"])
        changed = {name: (value, after.get(name)) for name, value in before.items() if after.get(name) != value}
        assert not changed, before["id"]
    for before in release.of_state("COMPLETED"):
        path = tmp_path / before["id"]
        shell.run("download", before["id"], "-o", f"{path}{Path(before['file_path']).suffix}")
    assert "damaged" not in shell.run("files", "verify").stdout

    flac, continuation = facts["generations"]["flac"]["id"], facts["generations"]["continuation"]
    same = json.loads(shell.run("render", flac, "--format", "mp3", "--json").stdout)
    assert same["render_id"] == facts["renders"][flac]
    other = json.loads(shell.run("render", flac, "--format", "ogg", "--json").stdout)
    assert other["render_id"] != same["render_id"]
    assert continuation["continuation"]["source_id"] in shell.run("show", continuation["id"], "--lineage").stdout
    [variation] = shell.generations("variations", flac, "--count", "1", "--seed", "11")
    assert flac in shell.run("show", variation.id, "--lineage").stdout
    clips = [json.loads(line) for line in shell.run("files", "list", "--json").stdout.splitlines()]
    assert set(facts["clips"]) <= {clip["generation_id"] for clip in clips}
    assert "studio-laptop" in shell.run("token", "list").stdout

    [crashed] = shell.generations("history", "power failure")
    shell.run("watch", crashed.id)
    [failed] = release.of_state("FAILED")
    shell.run("retry", failed["id"])
    for generation_id in (crashed.id, failed["id"]):
        assert show(shell, generation_id)["state"] == "GENERATION_STATE_COMPLETED"
    shell.run("db", "check", "--files")


def test_token_is_still_accepted(release: Release, shell: InProcessShell) -> None:
    shell.run("db", "migrate")
    settings = {"DGX_MUSIC_GATEWAY_ADDRESS": f"127.0.0.1:{free_ports(1)[0]}", "DGX_MUSIC_REQUIRE_TOKENS": "true"}
    with shell.running("serve", **settings) as server:
        read_until('"serving"', server)
        shell.run("history", DGX_MUSIC_TOKEN=release.facts["token"], **settings)
        wrong = release.facts["token"][:-4] + "AAAA"
        shell.run("history", status=1, DGX_MUSIC_TOKEN=wrong, **settings)


def test_backup_is_restored(release: Release, shell: InProcessShell, capfd: pytest.CaptureFixture[str]) -> None:
    backup = shell.data_dir / "backups" / "release.db"
    new = InProcessShell(release.data / "new", capfd)
    done = new.run("db", "restore", str(backup), "--yes")
    assert ("db migrate" in done.stdout) == release.needs_migration
    for folder in ("outputs", "renders", "clips", "spool"):
        if (shell.data_dir / folder).exists():
            shutil.move(shell.data_dir / folder, new.data_dir / folder)
    migrate(new, release)
    assert {one.id for one in new.generations("history", "-n", "100")} >= {
        one["id"] for one in release.facts["generations"].values()
    }


def test_backup_of_postgres_is_restored(release: Release, postgres_url: str, capfd: pytest.CaptureFixture[str]) -> None:
    shell = InProcessShell(release.data / "postgres", capfd)
    settings = {"DGX_MUSIC_DATABASE_URL": postgres_url}
    shell.run(
        "db", "restore", str(shell.data_dir / "backups" / "release.dump"), "--yes", PATH=postgres_tools(), **settings
    )
    migrate(shell, release, **settings)
    kept = shell.generations("history", **settings)
    assert [one.state for one in kept] == [kept[0].state] * 2
    [continuation] = [one for one in kept if one.HasField("continuation")]
    lineage = shell.run("show", continuation.id, "--lineage", **settings).stdout
    assert continuation.continuation.source_id in lineage
    shell.generations("generate", "house", "-d", "0.5", "--model", "sketch", **settings)
    shell.run("db", "check", "--files", **settings)


def test_config_file_is_read(release: Release, shell: InProcessShell) -> None:
    config = release.data / "config.toml"
    shutil.copy(release.folder / "config.toml", config)
    shown = shell.run("config", "show", "--json", DGX_MUSIC_CONFIG=str(config)).stdout
    settings = {one["name"]: one["value"] for one in map(json.loads, shown.splitlines())}
    for name, value in release.facts["settings"].items():
        assert settings[name] == type(settings[name])(value)


def test_contracts_are_kept(release: Release) -> None:
    if release.facts["version"] < COMPATIBLE_SINCE or "a" in release.facts["version"]:
        pytest.skip("its contracts have been replaced")
    against = str(release.folder / "contracts.binpb")
    done = subprocess.run(
        ["buf", "breaking", "--against", against], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
