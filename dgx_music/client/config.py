"""What a client is configured with: arguments, before environment variables, before the config file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from dgx_music.address import DEFAULT_ADDRESS, check_address
from dgx_music.config_file import PREFIX, ConfigFile, find_variable, read_config_file
from dgx_music.credentials import SYSTEM_CA, Credentials

PATH_SETTINGS = ("token_file", "tls_ca", "tls_certificate", "tls_key")

Arguments = Mapping[str, str | os.PathLike[str] | None]


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """The address of the server, and the credentials that it is shown."""

    address: str
    credentials: Credentials


def load_config(arguments: Arguments) -> ClientConfig:
    """Returns the configuration; an argument that is None is read from `DGX_MUSIC_<NAME>` or from the config file.

    Raises ValueError, which names the argument, variable or key at fault, and OSError if a file can't be read.
    """
    settings = _Settings(arguments, read_config_file())
    address, origin = settings.find("address", "gateway_address")
    address = address or DEFAULT_ADDRESS
    try:
        check_address(address)
    except ValueError as error:
        raise ValueError(f"{origin}={address}: {error}") from None
    token, token_origin = settings.find("token")
    token_file, file_origin = settings.find("token_file")
    if token is not None and token_file is not None and arguments.get("token") is None:
        raise ValueError(f"{token_origin} and {file_origin} are both set; set one of them")
    credentials = Credentials(
        token=token,
        token_file=token_file,
        client_name=settings.find("client_name")[0],
        ca=settings.find("tls_ca")[0],
        certificate=settings.find("tls_certificate")[0],
        key=settings.find("tls_key")[0],
    )
    for name in ("tls_certificate", "tls_key"):
        if arguments.get(name) is not None and credentials.ca is None:
            raise ValueError(f"{name} needs TLS: set tls_ca too, to the file of the server's certificate authority")
    if (credentials.certificate is None) != (credentials.key is None):
        raise ValueError("tls_certificate and tls_key belong together: set both, or none")
    # What can't be read is reported now, and not at the first call.
    try:
        credentials.metadata()
    except ValueError as error:
        raise ValueError(f"{file_origin if token is None else token_origin}: {error}") from None
    credentials.channel_credentials()
    return ClientConfig(address, credentials)


@dataclass(frozen=True)
class _Settings:
    arguments: Arguments
    file: ConfigFile

    def find(self, argument: str, setting: str = "") -> tuple[str | None, str]:
        """Returns the value, and the name of where it comes from. A variable that is empty counts as not set."""
        setting = setting or argument
        if (given := self.arguments.get(argument)) is not None:
            return os.fspath(given), argument
        if (variable := find_variable(setting)) is not None:
            return os.environ[variable], variable
        if (stored := self.file.values.get(setting)) is None:
            return None, PREFIX + setting.upper()
        is_path = setting in PATH_SETTINGS and stored != SYSTEM_CA
        return self.file.expand_path(setting, str(stored)) if is_path else str(stored), f"{setting} in the config file"
