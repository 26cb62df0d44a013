"""Settings that all services share, from the environment: `DGX_MUSIC_<NAME>`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import platformdirs
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


def default_data_dir() -> Path:
    """The platform's folder for a user's data, e.g. ~/.local/share/dgx-music."""
    return Path(platformdirs.user_data_dir("dgx-music", appauthor=False))


class Settings(BaseSettings):
    """What every service needs to run. Each service's `config.py` adds its own.

    An address is `host:port` or `unix:/path/to.sock`: clients dial it, and the service named binds to it unless
    `listen` says otherwise.
    """

    model_config = SettingsConfigDict(env_prefix="DGX_MUSIC_", env_ignore_empty=True, extra="ignore")

    data_dir: Path = Field(default_factory=default_data_dir)
    """Everything that is kept lives under here: database, files, spool, socket."""
    gateway_address: str | None = None
    """Where the gateway is. Unset, commands run embedded."""
    generation_address: str = "127.0.0.1:50051"
    """Where the generation service is."""
    storage_address: str = "127.0.0.1:50052"
    """Where the storage service is. Several servers on one Postgres: `ipv4:A:50052,B:50052`."""
    export_address: str = "127.0.0.1:50053"
    """Where the export service is."""
    listen: str | None = None
    """Where to bind instead of the service's address, e.g. 0.0.0.0:50052."""
    allow_insecure_listen: bool = False
    """Bind beyond loopback without TLS: only where the network itself is trusted, e.g. between containers."""
    reflection: bool | None = None
    """gRPC reflection. Unset: on for loopback and Unix sockets, off elsewhere."""
    metrics_port: int | None = Field(default=None, ge=0, le=65535)
    """Serve Prometheus metrics on this loopback port. Unset: off."""
    grace_seconds: float = Field(default=10.0, ge=0)
    """How long running calls may take to end after SIGTERM."""
    max_concurrent_rpcs: int = Field(default=512, ge=1)
    """Calls at once; one more is RESOURCE_EXHAUSTED."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """debug, info, warning or error. Debug has a line for each call served."""
    log_format: Literal["json", "console"] = "json"
    """json, one object a line, or console, for people."""


DEFAULT_GATEWAY_ADDRESS = "127.0.0.1:50050"
"""Where `serve` puts the gateway when no address is set."""
