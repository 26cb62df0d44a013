"""`dgx-music tls init`: makes a private certificate authority and certificates, or renews the certificates."""

from __future__ import annotations

import ipaddress
import json
import re
import shlex
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cryptography import x509

from gateway.cli.commands.tls.certificate_authority import CertificateAuthority, hosts_of, write_files
from gateway.cli.display.console import Console
from gateway.cli.session.command_errors import BAD_INPUT, CommandError
from service_runtime.file_modes import make_data_dir, make_private_folder

AUTHORITY, SERVER, CLIENT = "ca.pem", "server.pem", "client.pem"
AUTHORITY_KEY, SERVER_KEY, CLIENT_KEY = "ca.key", "server.key", "client.key"
LOCAL_HOSTS = "localhost", "127.0.0.1", "::1"
"""Every certificate of a server is valid there too, for clients and health probes on the same machine."""

_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DNS_NAME = re.compile(rf"(\*\.)?({_LABEL}\.)*{_LABEL}")


def init(folder: Path, hosts: Sequence[str], console: Console, *, renew: bool) -> int:
    """Writes the files, and prints what to set where.

    Raises CommandError if there are files already; with `renew`, if there is no authority or it has expired.
    """
    folder = folder.expanduser().absolute()
    named = [_check_host(host) for host in hosts]
    if renew:
        authority = _load_authority(folder)
        named = [*_previous_hosts(folder / SERVER), *named]
    else:
        _refuse_to_overwrite(folder)
        host_name = socket.gethostname()
        authority = CertificateAuthority.create(f"DGX Music authority of {host_name}"[:64])
        if _DNS_NAME.fullmatch(host_name):
            named = [host_name, *named]
    valid_for = list(dict.fromkeys([*LOCAL_HOSTS, *named]))
    server, server_key = authority.issue_server(valid_for)
    client, client_key = authority.issue_client()
    make_data_dir(folder.parent)  # By default the data directory, which others must not read.
    make_private_folder(folder)
    files = {SERVER_KEY: server_key, SERVER: server, CLIENT_KEY: client_key, CLIENT: client}
    if not renew:
        files |= {AUTHORITY_KEY: authority.key_pem(), AUTHORITY: authority.certificate_pem()}
    write_files({folder / name: content for name, content in files.items()})
    until = f"{x509.load_pem_x509_certificate(server).not_valid_after_utc:%Y-%m-%d}"
    if console.as_json:
        server_settings, client_settings = settings_for(folder)
        summary = {"folder": str(folder), "hosts": valid_for, "valid_until": until}
        console.out.print_json(
            json.dumps(summary | {"server": server_settings, "client": client_settings}), indent=None, highlight=False
        )
    elif renew:
        _print(
            console,
            f"Renewed the certificates in {folder}, for {', '.join(valid_for)}, valid until {until}.",
            f"Servers that read them there use them at once; copy {SERVER} and {SERVER_KEY} to the others.",
        )
    else:
        _print_instructions(console, folder, valid_for, until)
    return 0


def settings_for(folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Returns the settings of a server, and those of a client, as environment variables."""
    authority = {"DGX_MUSIC_TLS_CA": str(folder / AUTHORITY)}
    server = {
        "DGX_MUSIC_TLS_CERTIFICATE": str(folder / SERVER),
        "DGX_MUSIC_TLS_KEY": str(folder / SERVER_KEY),
        **authority,
    }
    return server, authority


def _print_instructions(console: Console, folder: Path, hosts: Sequence[str], until: str) -> None:
    server, client = settings_for(folder)
    address = next(host for host in reversed(hosts) if not host.startswith("*"))
    host = f"[{address}]" if ":" in address else address
    _print(
        console,
        f"Created a certificate authority and certificates in {folder}, for {', '.join(hosts)}, valid until {until}.",
        "",
        "# On the server:",
        *_exports(server),
        "# and to listen on the network:",
        *_exports({"DGX_MUSIC_LISTEN": "0.0.0.0:50050"}),
        "",
        f"# On each client, with the path of a copy of {AUTHORITY}, and of a file with a token, which",
        "# `dgx-music token create NAME` on the server prints:",
        *_exports({"DGX_MUSIC_GATEWAY_ADDRESS": f"{host}:50050"} | client),
        *_exports({"DGX_MUSIC_TOKEN_FILE": "FILE"}),
        "",
        "# To admit only clients that have a certificate (mutual TLS), also on the server:",
        *_exports({"DGX_MUSIC_TLS_CLIENT_CA": str(folder / AUTHORITY)}),
        f"# and on each client, with the paths of copies of {CLIENT} and {CLIENT_KEY}:",
        *_exports({"DGX_MUSIC_TLS_CERTIFICATE": str(folder / CLIENT), "DGX_MUSIC_TLS_KEY": str(folder / CLIENT_KEY)}),
        "",
        f"# Keep {AUTHORITY_KEY} secret: whoever has it can pretend to be any server. Servers do not need it.",
        f"# Renew the certificates before {until} with: dgx-music tls init {folder} --renew",
    )


def _exports(settings: dict[str, str]) -> list[str]:
    return [f"export {name}={shlex.quote(value)}" for name, value in settings.items()]


def _print(console: Console, *lines: str) -> None:
    for line in lines:
        console.out.print(line, markup=False, soft_wrap=True)


def _check_host(host: str) -> str:
    """Returns a name or an IP address. Raises CommandError if it is neither."""
    with suppress(ValueError):
        return str(ipaddress.ip_address(host.strip("[]")))
    if not _DNS_NAME.fullmatch(host):
        raise CommandError(f"--host: {host!r} is neither the name nor the IP address of a host", BAD_INPUT)
    return host


def _refuse_to_overwrite(folder: Path) -> None:
    for name in (AUTHORITY, AUTHORITY_KEY, SERVER, SERVER_KEY, CLIENT, CLIENT_KEY):
        if (folder / name).exists():
            raise CommandError(
                f"{folder / name} already exists and will not be overwritten; renew the certificates with --renew, "
                "or choose another folder"
            )


def _load_authority(folder: Path) -> CertificateAuthority:
    try:
        authority = CertificateAuthority.load(folder / AUTHORITY, folder / AUTHORITY_KEY)
    except FileNotFoundError as error:
        raise CommandError(f"{error.filename} does not exist; without --renew, a new authority is made") from error
    except ValueError as error:
        raise CommandError(f"{folder / AUTHORITY_KEY} and {AUTHORITY} are not an authority's: {error}") from error
    if authority.has_expired():
        raise CommandError(f"the authority in {folder} has expired; make a new one in another folder")
    return authority


def _previous_hosts(certificate: Path) -> list[str]:
    try:
        return hosts_of(x509.load_pem_x509_certificate(certificate.read_bytes()))
    except (OSError, ValueError):  # It is lost: then the hosts are those that are given now.
        return []
