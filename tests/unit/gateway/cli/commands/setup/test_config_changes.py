"""`dgx-music config set`, `unset` and `path`."""

from __future__ import annotations

import io
import json
import os
import stat
import sys
from pathlib import Path

import pytest

from gateway.cli.commands.setup import config_changes
from gateway.cli.invocation import run

BEFORE = """\
# My machine.
grace_seconds = 3  # seconds

log_level = "error"
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "folder" / "config.toml"
    monkeypatch.setenv("DGX_MUSIC_CONFIG", str(path))
    monkeypatch.delenv("DGX_MUSIC_DEVICES", raising=False)
    return path


def write(file: Path, content: str = BEFORE) -> None:
    file.parent.mkdir()
    file.write_text(content)
    file.chmod(0o644)


def test_new_file_and_folder_are_private(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "set", "gateway_address", "dgx:50050"]) == 0
    assert file.read_text() == 'gateway_address = "dgx:50050"\n'
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert capsys.readouterr().err == f"set gateway_address to dgx:50050 in {file}\n"


def test_comments_and_order_are_kept_and_the_file_becomes_private(file: Path) -> None:
    write(file)
    assert run(["config", "set", "DGX_MUSIC_GRACE_SECONDS", "4.5"]) == 0
    assert run(["config", "set", "max-waiting", "8"]) == 0
    assert file.read_text() == BEFORE.replace("3  #", "4.5  #") + "max_waiting = 8\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert run(["config", "unset", "max_waiting"]) == 0
    assert run(["config", "unset", "grace_seconds"]) == 0
    assert file.read_text() == '# My machine.\n\nlog_level = "error"\n'
    assert os.listdir(file.parent) == [file.name]


@pytest.mark.parametrize(
    ("key", "text", "line"),
    [
        ("reflection", "yes", "reflection = true"),
        ("metrics_port", "9000", "metrics_port = 9000"),
        ("devices", "0, 1", 'devices = "0,1"'),
        ("model_folders", "/a:/b", 'model_folders = ["/a", "/b"]'),
        ("data_dir", "~/music", f'data_dir = "{Path.home()}/music"'),
        ("data_dir", "music", f'data_dir = "{Path.cwd()}/music"'),
        ("tls_ca", "ca.pem", f'tls_ca = "{Path.cwd()}/ca.pem"'),
        ("tls_ca", "system", 'tls_ca = "system"'),
        ("token", "dgxm_x", 'token = "dgxm_x"'),
    ],
)
def test_value_has_the_type_of_its_setting(key: str, text: str, line: str, file: Path) -> None:
    assert run(["config", "set", key, text]) == 0
    assert file.read_text() == f"{line}\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["gatway_address", "x:1"], "KEY: gatway_address is not a setting; did you mean gateway_address?"),
        (["metrics_port", "many"], "VALUE: 'many' is not valid for metrics_port: Input should be a valid integer"),
        (["gateway_address", "http://x"], "VALUE: 'http://x' is not valid for gateway_address: must not be a URL"),
        (["log_level", "loud"], "VALUE: 'loud' is not valid for log_level: Input should be 'debug'"),
        (["devices", ""], "VALUE: must not be empty; to remove the key: dgx-music config unset devices"),
    ],
)
def test_invalid_change_leaves_the_file_alone(
    arguments: list[str], says: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(file)
    assert run(["config", "set", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"error: {says}")
    assert file.read_text() == BEFORE


def test_broken_file_is_not_overwritten(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(file, "log_level = loud")
    assert run(["config", "set", "devices", "cpu"]) == 2
    assert f"{file}, line 1: is not valid TOML" in capsys.readouterr().err
    assert file.read_text() == "log_level = loud"
    assert run(["config", "path"]) == 0
    assert capsys.readouterr().out == f"{file}\n"


def test_wrong_values_and_unknown_keys_can_be_taken_out(file: Path) -> None:
    write(file, 'gatway_address = "x"\nlog_level = "loud"\n')
    assert run(["config", "unset", "gatway_address"]) == 0
    assert run(["config", "set", "log_level", "debug"]) == 0
    assert file.read_text() == 'log_level = "debug"\n'


def test_full_disk_leaves_the_file_as_it_was(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(file)

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(config_changes.os, "fsync", fail)
    assert run(["config", "set", "devices", "cpu"]) == 1
    assert capsys.readouterr().err == f"error: failed to write {file}: No space left on device\n"
    assert file.read_text() == BEFORE
    assert os.listdir(file.parent) == [file.name]


def test_secret_is_read_from_standard_input(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("dgxm_secret\n"))
    assert run(["config", "set", "token", "-"]) == 0
    assert file.read_text() == 'token = "dgxm_secret"\n'
    assert "dgxm_secret" not in "".join(capsys.readouterr())


def test_link_stays_a_link(file: Path, tmp_path: Path) -> None:
    write(file)
    real = tmp_path / "dotfiles.toml"
    file.rename(real)
    file.symlink_to(real)
    assert run(["config", "unset", "log_level"]) == 0
    assert file.is_symlink()
    assert "log_level" not in real.read_text()


def test_device_is_not_replaced(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("DGX_MUSIC_CONFIG", os.devnull)
    assert run(["config", "set", "devices", "cpu"]) == 2
    assert "is not a regular file" in capsys.readouterr().err
    assert not Path(os.devnull).is_file()


def test_environment_that_takes_precedence_is_pointed_out(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DGX_MUSIC_DEVICES", "cpu")
    run(["config", "set", "devices", "0"])
    assert (
        capsys.readouterr().err.splitlines()[1]
        == "but DGX_MUSIC_DEVICES is set in the environment and takes precedence"
    )


def test_changes_as_json(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["set", "devices", "cpu"], ["unset", "devices"], ["path"]):
        assert run(["config", *arguments, "--json"]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert found == [
        {"path": str(file), "key": "devices", "is_set": True},
        {"path": str(file), "key": "devices", "is_set": False},
        {"path": str(file), "exists": True},
    ]
