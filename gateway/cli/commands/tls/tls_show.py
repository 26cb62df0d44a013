"""`dgx-music tls show`: which certificates there are, for whom, and until when."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from gateway.cli.commands.tls.certificate_authority import hosts_of, identities_of
from gateway.cli.display.console import Console, escape_text
from gateway.cli.session.command_errors import FAILURE, CommandError
from service_runtime.settings import Settings

SOON_DAYS = 30


@dataclass(frozen=True, slots=True)
class FoundCertificate:
    """A certificate in a file."""

    file: str
    subject: str
    issuer: str
    valid_for: list[str]
    """Names and IP addresses of servers, and URIs."""
    valid_until: str
    days_left: int


def show(paths: Iterable[Path], settings: Settings, console: Console) -> int:
    """Prints the certificates in the files and folders, or in those of the settings. Returns 1 if one has expired."""
    found = [certificate for file in _files(list(paths) or _configured(settings)) for certificate in _read(file)]
    if not found:
        raise CommandError("there are no certificates; `dgx-music tls init` makes some, or give a file or a folder")
    for certificate in found if console.as_json else ():
        console.out.print_json(json.dumps(asdict(certificate)), indent=None, highlight=False)
    if not console.as_json:
        columns = ("file", False), ("of", False), ("for", False), ("valid until", False), ("", False)
        console.print_table(columns, map(_row, found))
    return FAILURE if any(certificate.days_left < 0 for certificate in found) else 0


def default_folder(settings: Settings) -> Path:
    """Returns where `tls init` writes if no folder is given."""
    return settings.data_dir.expanduser().absolute() / "tls"


def _configured(settings: Settings) -> list[Path]:
    configured = (settings.tls_certificate, settings.tls_ca, settings.tls_client_ca)
    files = [Path(file).expanduser() for file in configured if file not in (None, "system")]
    folder = default_folder(settings)
    return [*dict.fromkeys(files), *([folder] if folder.is_dir() else [])]


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    seen = set()
    for path in paths:
        for file in sorted(path.glob("*.pem")) if path.is_dir() else [path]:
            if file not in seen:
                seen.add(file)
                yield file


def _read(file: Path) -> Iterator[FoundCertificate]:
    try:
        certificates = x509.load_pem_x509_certificates(file.read_bytes())
    except ValueError as error:
        raise CommandError(f"{file} is not a certificate in PEM") from error
    for certificate in certificates:
        until = certificate.not_valid_after_utc
        yield FoundCertificate(
            str(file),
            certificate.subject.rfc4514_string(),
            certificate.issuer.rfc4514_string(),
            [*hosts_of(certificate), *identities_of(certificate)],
            until.isoformat(),
            (until - datetime.now(UTC)).days,
        )


def _row(found: FoundCertificate) -> tuple[str, ...]:
    left = f"{found.days_left} days left"
    if found.days_left < 0:
        left = "[red]expired[/red]"
    elif found.days_left < SOON_DAYS:
        left = f"[yellow]{left}[/yellow]"
    subject = found.subject.removeprefix("CN=")
    return (
        escape_text(found.file),
        escape_text(subject),
        escape_text(", ".join(found.valid_for)),
        found.valid_until[:10],
        left,
    )
