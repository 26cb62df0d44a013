"""What a client shows a server, and how it recognizes the server: a token, and certificates for TLS."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote

import grpc

from dgx_music.watched_file import FileVersion, WatchedFile, read_versions

SYSTEM_CA = "system"
"""Instead of a file: the certificate authorities that gRPC trusts."""
AUTHORIZATION_KEY = "authorization"
"""Key of the metadata that carries the token."""
CLIENT_KEY = "dgx-music-client"
"""Key of the metadata with which a client names itself, or a service names the client for which it calls."""
MAX_CLIENT_NAME_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class Credentials:
    """Applies to TCP addresses; a Unix socket needs neither TLS nor a token, but a token is sent there too.

    The files are read again when they change.
    """

    token: str | None = field(default=None, repr=False)
    """Sent as `authorization: Bearer …`."""
    client_name: str | None = None
    """What the client calls itself where no token names it."""
    ca: str | None = None
    """PEM file of the certificate authority of the server's certificate, or "system". With it, connections use
    TLS."""
    certificate: str | None = None
    """PEM file of the client's own certificate chain, for servers that ask for one."""
    key: str | None = None
    """PEM file of the certificate's private key."""
    token_file: str | None = None
    """File that contains the token, if `token` is None."""
    _watched_token: WatchedFile | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        watched = None if self.token_file is None else WatchedFile(self.token_file)
        object.__setattr__(self, "_watched_token", watched)

    def channel_credentials(self) -> grpc.ChannelCredentials | None:
        """Reads the files; None if connections do not use TLS. Raises OSError if a file can't be read."""
        if self.ca is None:
            return None
        return grpc.ssl_channel_credentials(
            None if self.ca == SYSTEM_CA else Path(self.ca).expanduser().read_bytes(),
            None if self.key is None else Path(self.key).expanduser().read_bytes(),
            None if self.certificate is None else Path(self.certificate).expanduser().read_bytes(),
        )

    def file_versions(self) -> tuple[FileVersion | None, ...]:
        """Returns what tells whether `channel_credentials` would read other content than before."""
        files = (None if self.ca == SYSTEM_CA else self.ca, self.key, self.certificate)
        return read_versions(Path(file).expanduser() for file in files if file is not None)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Returns the metadata that every call carries. Raises OSError if the token's file could never be read, and
        ValueError, without the token, if what should be one can't be sent."""
        pairs = []
        token = self.token
        if token is None and self._watched_token is not None:
            token = self._watched_token.read()
        if token:
            if not (token.isascii() and token.isprintable()):
                raise ValueError("what should be a token is several lines, or has characters that no token has")
            pairs.append((AUTHORIZATION_KEY, f"Bearer {token}"))
        if self.client_name:
            pairs.append((CLIENT_KEY, encode_client_name(self.client_name)))
        return tuple(pairs)


NO_CREDENTIALS = Credentials()


def encode_client_name(name: str) -> str:
    """Returns the name as metadata may carry it: metadata is ASCII, so other characters are percent-encoded."""
    return quote(name, safe=" !#$&'()*+,/:;=?@[]")


def decode_client_name(value: str) -> str:
    """Returns the name that a client sent, at most 64 characters, without those that can't be printed."""
    name = "".join(character for character in unquote(value) if character.isprintable())
    return name[:MAX_CLIENT_NAME_CHARACTERS].strip()
