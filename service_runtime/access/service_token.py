"""The secret by which services recognize each other, and what a service sends with its calls."""

from __future__ import annotations

import hmac
from collections.abc import Callable

from dgx_music.credentials import AUTHORIZATION_KEY, CLIENT_KEY, encode_client_name
from dgx_music.errors import FailedPrecondition
from dgx_music.watched_file import WatchedFile
from dgx_music.wrapping_channel import Metadata
from service_runtime.access.caller import current_caller
from service_runtime.settings import Settings

MIN_CHARACTERS = 32


class ServiceToken:
    """The configured service token.

    A file may have several, one a line: the first is sent and all are accepted, so that the token can be replaced
    while the services run, by adding the new one as the second line everywhere, then putting it first, then removing
    the old one.
    """

    def __init__(self, settings: Settings) -> None:
        """Raises FailedPrecondition, which names the setting, if the token is too short or its file can't be read."""
        self._fixed = settings.service_token and settings.service_token.get_secret_value()
        self._file = None if settings.service_token_file is None else WatchedFile(settings.service_token_file)
        if self._fixed is not None and self._file is not None:
            raise _unusable("DGX_MUSIC_SERVICE_TOKEN and DGX_MUSIC_SERVICE_TOKEN_FILE are both set; set one of them")
        name = "DGX_MUSIC_SERVICE_TOKEN"
        if self._file is not None:
            name = f"{name}_FILE={settings.service_token_file}"
        try:
            self._accepted = self._read()
        except (OSError, UnicodeDecodeError) as error:
            raise _unusable(f"{name}: {getattr(error, 'strerror', None) or error}") from error
        if self._file is not None and not self._accepted:
            raise _unusable(f"{name}: the file is empty")
        if not all(map(_is_usable, self._accepted)):
            raise _unusable(
                f"{name}: a service token must have at least {MIN_CHARACTERS} characters, without spaces; "
                "make one with `openssl rand -hex 32`"
            )

    def accepted(self) -> tuple[str, ...]:
        """Returns the tokens that prove to be a service; the first is the one to send. Empty if there is none.

        While the file has none, or one that can't be used, as when it is being written, the previous ones stay.
        """
        if self._file is not None and (tokens := self._read()) and all(map(_is_usable, tokens)):
            self._accepted = tokens
        return self._accepted

    def _read(self) -> tuple[str, ...]:
        if self._file is not None:
            return tuple(line.strip() for line in self._file.read().splitlines() if line.strip())
        return (self._fixed,) if self._fixed else ()

    def matches(self, bearer: str) -> bool:
        """Returns whether `bearer` is a service token, in a time that does not depend on how much of it is right."""
        shown = bearer.encode()
        return any(hmac.compare_digest(shown, token.encode()) for token in self.accepted())


def _is_usable(token: str) -> bool:
    return len(token) >= MIN_CHARACTERS and token.isascii() and token.isprintable() and " " not in token


def service_metadata(settings: Settings) -> Callable[[], Metadata]:
    """Returns what a service's channels ask for at each call: its service token, and the client for which it calls.

    Raises FailedPrecondition as `ServiceToken` does.
    """
    service_token = ServiceToken(settings)

    def metadata() -> Metadata:
        pairs = [(AUTHORIZATION_KEY, f"Bearer {token}") for token in service_token.accepted()[:1]]
        if client := current_caller().client:
            pairs.append((CLIENT_KEY, encode_client_name(client)))
        return pairs

    return metadata


def _unusable(problem: str) -> FailedPrecondition:
    return FailedPrecondition(problem, reason="SERVICE_TOKEN_UNUSABLE")
