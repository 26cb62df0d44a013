"""`dgx-music tls show` in the test's process."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.cli.commands.tls.tls_show import show
from gateway.cli.display.console import Console
from gateway.cli.session.command_errors import CommandError
from service_runtime.settings import Settings
from tests.support.tls_files import TlsFiles, clock_of_issue, make_tls_files


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    return make_tls_files(tmp_path / "tls")


def test_certificates_of_a_folder_and_their_hosts(
    files: TlsFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert show([files.folder], Settings(data_dir=tmp_path), Console()) == 0
    title, *lines = capsys.readouterr().out.splitlines()
    assert title.split() == ["file", "of", "for", "valid", "until"]
    assert [line.split()[0].rpartition("/")[2] for line in lines] == ["ca.pem", "client.pem", "server.pem"]
    assert "localhost, 127.0.0.1, dgx-music:service" in lines[2]
    assert "364 days left" in lines[2]


def test_without_a_path_those_of_the_settings_and_the_data_directory(
    files: TlsFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make_tls_files(tmp_path / "other")
    settings = Settings(data_dir=tmp_path, tls_ca=str(other.ca), tls_certificate=other.folder / "client.pem")
    assert show([], settings, Console(as_json=True)) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [certificate["file"].removeprefix(str(tmp_path)) for certificate in found] == [
        "/other/client.pem",
        "/other/ca.pem",
        "/tls/ca.pem",
        "/tls/client.pem",
        "/tls/server.pem",
    ]
    assert found[0]["valid_for"] == ["dgx-music:client"]


@pytest.mark.parametrize(("days_ago", "says", "status"), [(400, "expired", 1), (350, "14 days left", 0)])
def test_expiry(
    days_ago: int, says: str, status: int, files: TlsFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with clock_of_issue(datetime.now(UTC) - timedelta(days=days_ago)):
        files.issue()
    assert show([files.folder / "server.pem"], Settings(data_dir=tmp_path), Console()) == status
    assert says in capsys.readouterr().out


def test_nothing_to_show(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="there are no certificates; `dgx-music tls init` makes some"):
        show([], Settings(data_dir=tmp_path), Console())
    (tmp_path / "x").write_text("x")
    with pytest.raises(CommandError, match="x is not a certificate in PEM"):
        show([tmp_path / "x"], Settings(data_dir=tmp_path), Console())
