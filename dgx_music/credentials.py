"""What a client shows a server, and how it recognizes the server: a token, and certificates for TLS."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import grpc

SYSTEM_CA = "system"
"""Instead of a file: the certification authorities that gRPC trusts."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Applies to TCP addresses; a Unix socket needs neither TLS nor a token, but a token is sent there too."""

    token: str | None = field(default=None, repr=False)
    """Sent as `authorization: Bearer …`."""
    client_name: str | None = None
    """What the client calls itself where no token names it."""
    ca: str | None = None
    """PEM file of the certification authority of the server's certificate, or "system". With it, connections use
    TLS."""
    certificate: str | None = None
    """PEM file of the client's own certificate chain, for servers that ask for one."""
    key: str | None = None
    """PEM file of the certificate's private key."""

    def channel_credentials(self) -> grpc.ChannelCredentials | None:
        """Reads the files; None if connections do not use TLS. Raises OSError if a file can't be read."""
        if self.ca is None:
            return None
        return grpc.ssl_channel_credentials(
            None if self.ca == SYSTEM_CA else Path(self.ca).expanduser().read_bytes(),
            None if self.key is None else Path(self.key).expanduser().read_bytes(),
            None if self.certificate is None else Path(self.certificate).expanduser().read_bytes(),
        )

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Returns the metadata that every call carries."""
        pairs = []
        if self.token is not None:
            pairs.append((AUTHORIZATION_KEY, f"Bearer {self.token}"))
        if self.client_name is not None:
            pairs.append((CLIENT_KEY, self.client_name))
        return tuple(pairs)


AUTHORIZATION_KEY = "authorization"
"""Key of the metadata that carries the token."""
CLIENT_KEY = "dgx-music-client"
"""Key of the metadata with which a client names itself, or a service names the client for which it calls."""
NO_CREDENTIALS = Credentials()
