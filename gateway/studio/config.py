"""The settings of the Studio."""

from __future__ import annotations

from pydantic import ValidationInfo, field_validator

from dgx_music.address import check_address
from gateway.config import GatewaySettings

DEFAULT_PORT = 8090


class StudioSettings(GatewaySettings):
    """The settings of `dgx-music studio`. It calls the gateway with the token that its user has signed in with."""

    studio_listen: str = f"127.0.0.1:{DEFAULT_PORT}"
    """Address to bind the Studio to. Beyond loopback, it needs TLS and tokens as all servers do."""

    @field_validator("studio_listen")
    @classmethod
    def _check_studio_address(cls, address: str, info: ValidationInfo) -> str:
        return check_address(address, DEFAULT_PORT)
