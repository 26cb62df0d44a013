"""Gives the files of `dgx-music tls init`, from an authority that a test may use further."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from unittest import mock

from dgx_music.credentials import Credentials
from gateway.cli.commands.tls import certificate_authority
from gateway.cli.commands.tls.certificate_authority import CertificateAuthority, write_files

LOOPBACK = ("localhost", "127.0.0.1")


@dataclass(frozen=True)
class TlsFiles:
    """An authority and certificates for servers on loopback and for clients."""

    folder: Path
    authority: CertificateAuthority

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    def issue(self, hosts: tuple[str, ...] = LOOPBACK) -> None:
        """Writes new certificates."""
        server, server_key = self.authority.issue_server(hosts)
        client, client_key = self.authority.issue_client()
        write_files(
            {
                self.folder / "server.key": server_key,
                self.folder / "server.pem": server,
                self.folder / "client.key": client_key,
                self.folder / "client.pem": client,
            }
        )

    def server_settings(self) -> dict[str, object]:
        return {
            "tls_certificate": self.folder / "server.pem",
            "tls_key": self.folder / "server.key",
            "tls_ca": str(self.ca),
        }

    def credentials(self, certificate: str | None = None, **fields: str) -> Credentials:
        """Returns a client's credentials, on request with the certificate "client" or "server"."""
        if certificate is not None:
            names = {"certificate": f"{certificate}.pem", "key": f"{certificate}.key"}
            fields |= {field: str(self.folder / name) for field, name in names.items()}
        return Credentials(ca=str(self.ca), **fields)


def make_tls_files(folder: Path) -> TlsFiles:
    """Writes the files of a new authority into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    files = TlsFiles(folder, CertificateAuthority.create("Test authority"))
    write_files({files.ca: files.authority.certificate_pem()})
    files.issue()
    return files


@contextmanager
def clock_of_issue(now: datetime) -> Iterator[None]:
    """Certificates that the block issues are issued at this time."""
    clock = mock.Mock(now=lambda zone: now)
    with mock.patch.object(certificate_authority, "datetime", clock):
        yield
