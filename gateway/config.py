"""The gateway's settings."""

from __future__ import annotations

from service_runtime.settings import DEFAULT_GATEWAY_ADDRESS, Settings


class GatewaySettings(Settings):
    """What the gateway needs to run: all of it is shared."""

    @property
    def address(self) -> str:
        """Where the gateway is bound when it is served."""
        return self.listen or self.gateway_address or DEFAULT_GATEWAY_ADDRESS
