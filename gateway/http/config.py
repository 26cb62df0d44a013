"""The settings of the HTTP endpoints."""

from __future__ import annotations

from pydantic import ValidationInfo, field_validator

from dgx_music.address import check_address
from gateway.config import GatewaySettings

DEFAULT_PORT = 8080


class HttpSettings(GatewaySettings):
    """The settings of `dgx-music http`. It calls the gateway with the token of its own caller."""

    http_listen: str = f"127.0.0.1:{DEFAULT_PORT}"
    """Address to bind the HTTP endpoints to. Beyond loopback, they need TLS and tokens as all servers do."""

    @field_validator("http_listen")
    @classmethod
    def _check_http_address(cls, address: str, info: ValidationInfo) -> str:
        return check_address(address, DEFAULT_PORT)
