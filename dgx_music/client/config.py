"""What a client is configured with: arguments, before environment variables, before the config file."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import platformdirs

from dgx_music.address import check_address
from dgx_music.credentials import Credentials

DEFAULT_ADDRESS = "127.0.0.1:50050"
"""Where `dgx-music serve` listens."""
PREFIX = "DGX_MUSIC_"
CONFIG_VARIABLE = "DGX_MUSIC_CONFIG"
"""Names the config file, instead of `config.toml` in the platform's folder for settings."""


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """Where the server is, and what it is shown."""

    address: str
    credentials: Credentials
    token_file: Path | None = None
    """Has the token instead; read again at each call, since a token may be replaced."""

    def current_credentials(self) -> Credentials:
        """Raises OSError if the file with the token can't be read."""
        if self.token_file is None:
            return self.credentials
        return replace(self.credentials, token=self.token_file.read_text().strip())

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Returns what a call carries now."""
        return self.current_credentials().metadata()


def load_config(**arguments: str | os.PathLike[str] | None) -> ClientConfig:
    """Returns the configuration; an argument that is None is read from `DGX_MUSIC_<NAME>` or from the config file.

    Raises ValueError, which names the argument, variable or key at fault, and OSError if a file can't be read.
    """
    source = _Settings(arguments, os.environ, read_config_file())
    address, origin = source.find("address", "gateway_address")
    try:
        check_address(address or DEFAULT_ADDRESS)
    except ValueError as error:
        raise ValueError(f"{origin}={address}: {error}") from None
    token, token_origin = source.find("token")
    token_file, file_origin = source.find("token_file")
    if token_origin == "token":  # An argument precedes all else.
        token_file = None
    elif token is not None and token_file is not None:
        raise ValueError(f"{token_origin} and {file_origin} are both set; use one of the two")
    credentials = Credentials(
        token=token,
        client_name=source.find("client_name")[0],
        ca=source.find("tls_ca")[0],
        certificate=source.find("tls_certificate")[0],
        key=source.find("tls_key")[0],
    )
    for name in ("tls_certificate", "tls_key"):
        if arguments.get(name) is not None and credentials.ca is None:
            raise ValueError(
                f"{name} is only used with TLS: set tls_ca too, to the file of the server's certification authority"
            )
    config = ClientConfig(
        address or DEFAULT_ADDRESS, credentials, None if token_file is None else Path(token_file).expanduser()
    )
    config.current_credentials().channel_credentials()  # Reports a file that can't be read now, and not at a call.
    return config


def config_file_path() -> Path:
    """Returns where the config file is, or would be, e.g. ~/.config/dgx-music/config.toml."""
    if path := os.environ.get(CONFIG_VARIABLE):
        return Path(path).expanduser()
    return Path(platformdirs.user_config_dir("dgx-music", appauthor=False)) / "config.toml"


def read_config_file() -> Mapping[str, Any]:
    """Returns the settings in the config file; none if there is no file. Raises ValueError if it is not TOML."""
    path = config_file_path()
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:  # Neither UTF-8 nor TOML.
        raise ValueError(f"{path} is not a valid config file: {error}") from None


@dataclass(frozen=True)
class _Settings:
    arguments: Mapping[str, str | os.PathLike[str] | None]
    environment: Mapping[str, str]
    file: Mapping[str, Any]

    def find(self, argument: str, setting: str = "") -> tuple[str | None, str]:
        """Returns the value, and the name of where it comes from. A variable that is empty counts as not set."""
        setting = setting or argument
        variable = PREFIX + setting.upper()
        if (given := self.arguments.get(argument)) is not None:
            return os.fspath(given), argument
        if value := self.environment.get(variable):
            return value, variable
        if (stored := self.file.get(setting)) is not None:
            return str(stored), setting
        return None, argument
