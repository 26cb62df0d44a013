"""Finds out who calls: by a token, by a certificate, or because the server trusts everyone who can reach it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from dgx_music.credentials import AUTHORIZATION_KEY, CLIENT_KEY, decode_client_name
from dgx_music.errors import Unauthenticated
from service_runtime.access.caller import Caller, Scope
from service_runtime.access.service_token import ServiceToken
from service_runtime.access.token_verifier import TokenCache

if TYPE_CHECKING:
    import grpc.aio

    Context = grpc.aio.ServicerContext[Any, Any]
    Metadata = Sequence[tuple[str, str | bytes]]

SERVICE_URI = b"dgx-music:service"
"""URI among the subject alternative names of a certificate by which its bearer is a service of ours."""
TOKEN_REQUIRED = "TOKEN_REQUIRED"
"""Reason of the error for a call without a token."""
UNIX_HOST = "unix"
"""What stands for the host of a caller who has connected by a Unix socket."""


class Authenticator:
    """Recognizes the callers at one listener."""

    def __init__(
        self, tokens: TokenCache, service_token: ServiceToken, *, requires_tokens: bool, trusts_certificates: bool
    ) -> None:
        """`trusts_certificates`: the listener admits no one whose certificate has not been verified."""
        self.tokens = tokens
        self._service_token = service_token
        self._requires_tokens, self._trusts_certificates = requires_tokens, trusts_certificates

    async def check_token(self, bearer: str | None) -> None:
        """Raises what `identify` will raise because of the token, or because there is none."""
        if bearer is not None:
            if not self._service_token.matches(bearer):
                await self.tokens.verify(bearer)
        elif self._requires_tokens and not self._trusts_certificates:
            raise _token_required()

    async def identify(self, bearer: str | None, client_name: str, host: str, context: Context) -> Caller:
        """Returns the caller, who has shown the token `bearer` and calls itself `client_name`, which may be empty.

        A token that is shown decides, also where none is needed. Raises Unauthenticated if it is not valid, or if one
        is required and missing; else what verifying it raises.
        """
        name = client_name or host
        if bearer is None:
            if self._trusts_certificates and _is_service(context):
                return Caller(Scope.SERVICE, name, host)
            if self._requires_tokens:
                raise _token_required()
            return Caller(Scope.ADMIN, name, host)
        if self._service_token.matches(bearer):
            return Caller(Scope.SERVICE, name, host)
        token = await self.tokens.verify(bearer)
        return Caller(Scope(token.scope), token.name, host, token.id, token.weight or 1.0)


def read_bearer(metadata: Metadata) -> str | None:
    """Returns the token in the metadata; None if there is none. The scheme is in any case (RFC 9110, section 11.1).

    Raises Unauthenticated if it is not one token: of two, whoever is between client and server might see another one.
    """
    values = [value for key, value in metadata if key == AUTHORIZATION_KEY]
    if not values:
        return None
    scheme, _, token = str(values[0]).partition(" ")
    if len(values) > 1 or scheme.lower() != "bearer":
        raise Unauthenticated(
            f"the metadata `{AUTHORIZATION_KEY}` must be `Bearer TOKEN`, once", reason="AUTHORIZATION_SCHEME"
        )
    return token.strip()


def read_client_name(metadata: Metadata) -> str:
    """Returns what the client calls itself; empty if it does not."""
    return next((decode_client_name(str(value)) for key, value in metadata if key == CLIENT_KEY), "")


def peer_host(context: Context) -> str:
    """Returns where the call comes from: an IP address, or "unix"."""
    kind, _, rest = context.peer().partition(":")
    if kind not in ("ipv4", "ipv6"):
        return UNIX_HOST
    return unquote(rest).rpartition(":")[0].strip("[]")


def _token_required() -> Unauthenticated:
    return Unauthenticated(
        "a token is required; set DGX_MUSIC_TOKEN to one from `dgx-music token create`, which makes the first one "
        "while no server runs, or send it as metadata `authorization: Bearer TOKEN`",
        reason=TOKEN_REQUIRED,
    )


def _is_service(context: Context) -> bool:
    names: Mapping[str, Any] = context.auth_context()
    return SERVICE_URI in names.get("peer_uri", ())
