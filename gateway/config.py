"""The gateway's settings."""

from __future__ import annotations

from dgx_music.address import DEFAULT_ADDRESS
from service_runtime.settings import Settings


class GatewaySettings(Settings):
    """The settings of the gateway. It has none of its own besides those that all services share."""

    @property
    def address(self) -> str:
        """The address that a gateway server binds."""
        return self.listen or self.gateway_address or DEFAULT_ADDRESS
