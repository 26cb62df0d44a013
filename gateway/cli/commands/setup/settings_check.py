"""What `dgx-music doctor` finds in the settings: the config file, the environment, TLS and tokens."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from dgx_music.config_file import CONFIG_VARIABLE, PREFIX, ConfigFileError, suggest
from dgx_music.errors import FailedPrecondition
from gateway.cli.session.command_errors import describe_error
from gateway.cli.session.command_settings import checked_config_file, describe_exposure
from gateway.config import GatewaySettings
from gateway.settings_catalog import CLASSES, SECTIONS
from generation_service.models.finding import Finding
from service_runtime.rpc.binding import is_local, require_local_or_allowed

NO_SETTINGS = frozenset({CONFIG_VARIABLE, "DGX_MUSIC_FAILPOINT"})
"""Environment variables of the same form that are not settings."""


def check_settings() -> Iterator[Finding]:
    """Checks the config file and the environment. If one of them is broken, no service can start."""
    try:
        file = checked_config_file()
        for settings_class in SECTIONS.values():
            settings_class()
    except (ConfigFileError, ValidationError) as error:
        way_out = "correct it; `dgx-music config set KEY VALUE` and `config unset KEY` change the config file"
        yield Finding("settings", "broken", describe_error(error).message, way_out)
        return
    if exposure := describe_exposure(file):
        yield Finding("config file", "broken", *exposure.split("; run: ", 1))
    elif file.values:
        yield Finding("config file", "ok", f"{file.path} with {len(file.values)} settings")
    else:
        yield Finding("config file", "ok", f"none; `dgx-music config set KEY VALUE` creates {file.path}")
    yield from _check_environment()


def _check_environment() -> Iterator[Finding]:
    """Yields the variables that nothing reads, which are most often misspelt."""
    for variable in sorted(os.environ):
        name = variable.upper().removeprefix(PREFIX).lower()
        if variable.upper().startswith(PREFIX) and variable.upper() not in NO_SETTINGS and name not in CLASSES:
            known = [PREFIX + known.upper() for known in CLASSES]
            yield Finding("environment", "broken", f"{variable} is not a setting", suggest(variable.upper(), known))


def check_access(settings: GatewaySettings) -> Iterator[Finding]:
    """Checks what this machine shows servers, and what it shows clients if it serves on the network."""
    try:
        credentials = settings.credentials()
    except FailedPrecondition as error:
        yield Finding("access", "broken", error.message, "correct the setting, or unset it")
        return
    has_token, address = settings.token is not None or settings.token_file is not None, settings.gateway_address
    if has_token and address is not None and credentials.ca is None and not is_local(address):
        found = f"the token would be sent to {address} without encryption"
        yield Finding(
            "access", "broken", found, "set DGX_MUSIC_TLS_CA to the file of the server's certificate authority"
        )
    else:
        token = "a token is sent to servers" if has_token else "no token, which servers on this machine do not need"
        yield Finding(
            "access", "ok", f"{token}; TLS " + (f"with {credentials.ca}" if credentials.ca else "is not used")
        )
    if settings.tls_certificate is not None and settings.tls_key is not None:
        yield _check_certificate(settings.tls_certificate.expanduser(), settings.tls_key.expanduser())
    if settings.listen is not None:
        try:
            require_local_or_allowed(settings.listen, settings)
        except FailedPrecondition as error:
            yield Finding("listen", "broken", error.message, "set what is missing, or change DGX_MUSIC_LISTEN")


def _check_certificate(certificate: Path, key: Path) -> Finding:
    found = f"{certificate} with {key}"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except OSError as error:
        reason = "not PEM, or the key of another certificate" if isinstance(error, ssl.SSLError) else error.strerror
        return Finding("certificate", "broken", f"{found}: {reason}", "`dgx-music tls init` makes a new pair")
    return Finding("certificate", "ok", found)
