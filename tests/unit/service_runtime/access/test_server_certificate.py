"""Certificates that a server can't use, and those that are renewed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption

from dgx_music.errors import FailedPrecondition
from service_runtime.access.server_certificate import ServerCertificate, build_server_credentials
from service_runtime.settings import Settings
from tests.support.certificates import KEYS, pem
from tests.support.log_capture import captured_logs
from tests.support.tls_files import TlsFiles, clock_of_issue, make_tls_files


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    return make_tls_files(tmp_path)


@pytest.fixture
def settings(files: TlsFiles) -> Settings:
    return Settings(**files.server_settings(), tls_client_ca=files.ca)


def issue_at(files: TlsFiles, when: datetime) -> None:
    with clock_of_issue(when):
        files.issue()


def swap_keys(files: TlsFiles) -> None:
    (files.folder / "client.key").replace(files.folder / "server.key")


def write(name: str, content: bytes) -> Callable[[TlsFiles], object]:
    return lambda files: (files.folder / name).write_bytes(content)


SPOILED: list[tuple[Callable[[TlsFiles], object], str]] = [
    (
        lambda files: (files.folder / "server.pem").unlink(),
        "TLS_CERTIFICATE={}/server.pem: the file can't be read",
    ),
    (
        lambda files: (files.folder / "server.key").unlink(),
        "TLS_KEY={}/server.key: the file can't be read: No such",
    ),
    (lambda files: files.ca.unlink(), "TLS_CLIENT_CA={}/ca.pem: the file can't be read: No such file"),
    (write("server.pem", b"x"), "TLS_CERTIFICATE={}/server.pem: the file is not a certificate in PEM"),
    (write("server.key", b"x"), "TLS_KEY={}/server.key: the file is not a private key in PEM"),
    (write("ca.pem", b"x"), "TLS_CLIENT_CA={}/ca.pem: the file is not a certificate in PEM"),
    (write("server.key", pem(KEYS["p256"](), BestAvailableEncryption(b"x"))), "TLS_KEY={}/server.key: the key is encr"),
    (
        swap_keys,
        "TLS_KEY={}/server.key: the key does not belong to the certificate of DGX_MUSIC_TLS_CERTIFICATE=",
    ),
    (
        lambda files: issue_at(files, datetime.now(UTC) - timedelta(days=400)),
        "TLS_CERTIFICATE={}/server.pem: the certificate expired at 20",
    ),
    (
        lambda files: issue_at(files, datetime.now(UTC) + timedelta(days=400)),
        "TLS_CERTIFICATE={}/server.pem: the certificate is not valid before 20",
    ),
]


@pytest.mark.parametrize(("spoil", "says"), SPOILED)
def test_unusable_file_names_its_setting(
    spoil: Callable[[TlsFiles], object], says: str, files: TlsFiles, settings: Settings
) -> None:
    spoil(files)
    with pytest.raises(FailedPrecondition) as caught:
        build_server_credentials(settings)
    assert caught.value.message.startswith("DGX_MUSIC_" + says.format(files.folder))


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        ({"tls_key": None}, "DGX_MUSIC_TLS_CERTIFICATE is set, but DGX_MUSIC_TLS_KEY is not"),
        ({"tls_certificate": None}, "DGX_MUSIC_TLS_KEY is set, but DGX_MUSIC_TLS_CERTIFICATE is not"),
        (
            {"tls_certificate": None, "tls_key": None},
            "DGX_MUSIC_TLS_CLIENT_CA is set, but DGX_MUSIC_TLS_CERTIFICATE is not",
        ),
    ],
)
def test_settings_that_need_another(missing: dict[str, None], says: str, settings: Settings) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        build_server_credentials(settings.model_copy(update=missing))
    assert caught.value.message.startswith(says)


def test_no_certificate_no_tls() -> None:
    assert build_server_credentials(Settings()) is None


def test_renewed_files_are_read_once_and_broken_ones_never_used(files: TlsFiles, settings: Settings) -> None:
    certificate = ServerCertificate(settings)
    assert certificate.renewed() is None
    files.issue()
    assert certificate.renewed() is certificate.current
    assert certificate.renewed() is None
    working = certificate.current
    (files.folder / "server.pem").write_bytes(b"half of a certi")
    with captured_logs("json") as log:
        assert certificate.renewed() is None
        assert certificate.renewed() is None
    assert certificate.current is working
    assert log.getvalue().count("certificate_not_renewed") == 1
    files.issue()
    assert certificate.renewed() is not None


def test_missing_library_is_named(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cryptography", None)
    with pytest.raises(FailedPrecondition, match=r"TLS needs the library cryptography; run `.*dgx-music\[tls\]"):
        build_server_credentials(settings)
