"""Settings that all services share, read from the environment variables `DGX_MUSIC_<NAME>` and from the config file."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Literal

import platformdirs
from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from dgx_music.address import DEFAULT_PORT, check_address
from dgx_music.config_file import (
    PREFIX,
    SECRET_NAMES,
    ConfigFileError,
    find_variable,
    read_config_file,
)
from dgx_music.credentials import SYSTEM_CA, Credentials
from dgx_music.errors import FailedPrecondition
from service_runtime.config_source import ConfigFileSource

DEFAULT_PORTS = {
    "gateway_address": DEFAULT_PORT,
    "generation_address": 50051,
    "storage_address": 50052,
    "export_address": 50053,
    "listen": DEFAULT_PORT,
    "health_listen": 50060,
}
"""Setting → the port that it usually has."""


def default_data_dir() -> Path:
    """Returns the platform's folder for user data, e.g. ~/.local/share/dgx-music."""
    return Path(platformdirs.user_data_dir("dgx-music", appauthor=False))


class Settings(BaseSettings):
    """The settings that every service needs. Each service's `config.py` adds its own.

    An address is `host:port` or `unix:/path/to.sock`. Clients connect to it, and the service that it names binds to it
    unless `listen` is set.

    What a caller passes takes precedence over the environment, and that over the config file. Raises ValidationError
    for a value that is not valid, and ConfigFileError for a file that can't be used.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="ignore")

    data_dir: Path = Field(default_factory=default_data_dir)
    """Folder of all persistent data: the database, the audio files, the spool and the socket."""
    gateway_address: str | None = None
    """Address of the gateway, or of several. If unset, commands run the services in their own process."""
    generation_address: str = "127.0.0.1:50051"
    """Address of the generation service, or of several."""
    storage_address: str = "127.0.0.1:50052"
    """Address of the storage service. Several servers that share one Postgres: `dns:///storage:50052` for all that the
    name has, or `ipv4:A:50052,B:50052`."""
    export_address: str = "127.0.0.1:50053"
    """Address of the export service, or of several that share one object storage."""
    listen: str | None = None
    """Address to bind to instead of the service's own, e.g. 0.0.0.0:50052."""
    allow_insecure_listen: bool = False
    """Allow binding to a non-loopback address without TLS and tokens. Only for trusted networks."""
    tls_certificate: Path | None = None
    """PEM file of this machine's certificate chain. A server shows it on its TCP addresses, which then use TLS; a
    client shows it to servers that ask for one. Read again when it changes."""
    tls_key: Path | None = None
    """PEM file of the private key of `tls_certificate`."""
    tls_ca: str | None = None
    """PEM file of the certificate authority of servers' certificates, or `system`. If set, connections to TCP
    addresses use TLS."""
    tls_client_ca: Path | None = None
    """PEM file of the certificate authority of clients' certificates. If set, a server accepts no client without one
    (mutual TLS)."""
    require_tokens: bool | None = None
    """Whether calls need a token. If unset: not on loopback addresses and Unix sockets, but on all others."""
    token: SecretStr | None = None
    """Token of this client, from `dgx-music token create`."""
    token_file: Path | None = None
    """File that contains the token of this client, in place of `token`. Read again when it changes."""
    service_token: SecretStr | None = None
    """Secret by which services recognize each other, the same for all; at least 32 characters."""
    service_token_file: Path | None = None
    """File that contains the service token, in place of `service_token`. Read again when it changes."""
    audit_log: Path | None = None
    """File to which a line of JSON is added for each change: who, what, from where, and how it ended. The log has the
    same lines, as `audit`."""
    client_name: str | None = None
    """Name of this client in the queue, in which clients take turns. A token's own name takes precedence. If unset, it
    is the client's host."""
    reflection: bool | None = None
    """Whether to serve gRPC reflection. If unset: on for loopback addresses and Unix sockets, off for all others."""
    health_listen: str | None = None
    """Address to serve health alone on, without TLS and tokens, e.g. 0.0.0.0:50060: for Kubernetes's probes, which know
    no TLS. If unset, health is served at the service's own address only."""
    metrics_port: int | None = Field(default=None, ge=0, le=65535)
    """Port on which Prometheus metrics are served. If unset, there are no metrics."""
    metrics_host: str = "127.0.0.1"
    """IP address or host on which metrics are served, without TLS and tokens. One beyond loopback requires
    `allow_insecure_listen`."""
    grace_seconds: float = Field(default=10.0, ge=0)
    """Time that running calls have to finish after SIGTERM, in seconds."""
    max_concurrent_calls: int = Field(default=16, ge=1)
    """Maximum number of unary calls that the gateway serves at once; the services behind it serve four times as many.
    Further calls wait; those that would wait for longer than 1 s are rejected with RESOURCE_EXHAUSTED, which says when
    to try again."""
    max_concurrent_streams: int = Field(default=1024, ge=1)
    """Maximum number of streams (listeners, watchers, uploads, downloads) and of calls that take seconds, such as
    Render. Further ones are rejected at once."""
    max_connections: int = Field(default=1024, ge=1)
    """Maximum number of connections to each address. Further ones are closed at once."""
    allowed_hosts: str = ""
    """Host names, separated by commas, by which web pages and programs may call `dgx-music http` and the metrics. IP
    addresses, localhost and this machine's own name always do. Keeps out web pages whose host name leads here."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Minimum level of the events that are logged: debug, info, warning or error."""
    log_format: Literal["json", "console"] = "json"
    """json: log one JSON object per line. console: lines of text for people."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Returns where values come from, in order of precedence."""
        return init_settings, env_settings, ConfigFileSource(settings_cls)

    @field_validator(*DEFAULT_PORTS)
    @classmethod
    def _check_address(cls, address: str | None, info: ValidationInfo) -> str | None:
        return address and check_address(address, DEFAULT_PORTS[info.field_name or "listen"])

    def credentials(self) -> Credentials:
        """Returns what this client shows servers. Raises FailedPrecondition, which names the setting, if it can't."""
        if self.token is not None and self.token_file is not None:
            raise _unusable("DGX_MUSIC_TOKEN and DGX_MUSIC_TOKEN_FILE are both set; set one of them")
        credentials = Credentials(
            token=None if self.token is None else self.token.get_secret_value(),
            client_name=self.client_name,
            token_file=None if self.token_file is None else str(self.token_file),
            **self._tls_files(),
        )
        try:
            credentials.metadata()
        except (OSError, ValueError) as error:
            source = "DGX_MUSIC_TOKEN" if self.token_file is None else f"DGX_MUSIC_TOKEN_FILE={self.token_file}"
            raise _unusable(f"{source}: {getattr(error, 'strerror', None) or error}") from error
        return credentials

    def service_credentials(self) -> Credentials:
        """Returns the part of `credentials` with which a service connects to another: certificates, but no token."""
        return Credentials(**self._tls_files())

    def _tls_files(self) -> dict[str, str | None]:
        files: dict[str, str | None] = {"ca": self.tls_ca}
        if self.tls_ca is not None and self.tls_certificate is not None:
            if self.tls_key is None:
                raise _unusable("DGX_MUSIC_TLS_CERTIFICATE is set, but DGX_MUSIC_TLS_KEY is not; set both, or none")
            files |= {"certificate": str(self.tls_certificate), "key": str(self.tls_key)}
        for name, file in files.items():
            if file is None or file == SYSTEM_CA:
                continue
            try:
                Path(file).expanduser().read_bytes()
            except OSError as error:
                raise _unusable(
                    f"DGX_MUSIC_TLS_{name.upper()}={file}: the file can't be read: {error.strerror or error}"
                ) from error
        return files


def _unusable(problem: str) -> FailedPrecondition:
    return FailedPrecondition(problem, reason="CREDENTIALS_UNUSABLE")


def format_settings_error(error: ValidationError) -> str:
    """Returns which variables or keys of the config file are invalid, with their values and what they must be."""
    problems = []
    for detail in error.errors(include_url=False):
        problem = detail["msg"].removeprefix("Value error, ")
        if detail["loc"]:  # Else the problem names the place itself.
            problem = f"{_describe_source(str(detail['loc'][0]), detail['input'])}: {problem}"
        problems.append(problem)
    return "; ".join(problems)


def _describe_source(name: str, value: object) -> str:
    """Returns where this value of the setting stands, and the value unless it is secret."""
    variable, shown = find_variable(name), "" if name in SECRET_NAMES else f"{value}"
    if variable is None or os.environ[variable] != value:
        with suppress(ConfigFileError):
            file = read_config_file()
            if name in file.values:
                return f"{file.path}, line {file.lines.get(name)}: {name}" + (f" = {shown}" if shown else "")
    return (variable or PREFIX + name.upper()) + (f"={shown}" if shown else "")
