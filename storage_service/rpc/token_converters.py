"""Conversion between the messages of tokens and the domain's types."""

from __future__ import annotations

from datetime import UTC

from dgx_music.access.v1 import access_pb2
from dgx_music.errors import InvalidArgument
from service_runtime.access.caller import Scope
from storage_service.db.access_models import Token
from storage_service.domain.token_registry import NewToken
from storage_service.rpc.converters import timestamp_to_proto

SCOPES = {access_pb2.Scope.Value(f"SCOPE_{scope.name}"): scope for scope in Scope}


def token_to_proto(token: Token) -> access_pb2.Token:
    """Converts a token, without the hash of its secret."""
    return access_pb2.Token(
        id=token.id,
        name=token.name,
        scope=f"SCOPE_{token.granted_scope.name}",
        limits=access_pb2.TokenLimits(
            calls_per_minute=token.calls_per_minute,
            max_queued=token.max_queued,
            minutes_per_day=token.minutes_per_day,
        ),
        weight=token.weight,
        created_at=timestamp_to_proto(token.created_at),
        expires_at=timestamp_to_proto(token.expires_at),
        revoked_at=timestamp_to_proto(token.revoked_at),
    )


def new_token_from_proto(request: access_pb2.CreateTokenRequest) -> NewToken:
    """Converts a request. The domain checks the fields."""
    expires_at = None
    if request.HasField("expires_at"):
        try:
            expires_at = request.expires_at.ToDatetime(tzinfo=UTC)
        except (ValueError, OverflowError) as error:
            raise InvalidArgument("expires_at", f"is not a timestamp from year 1 to 9999: {error}") from error
    return NewToken(
        name=request.name,
        scope=SCOPES.get(request.scope),
        calls_per_minute=request.limits.calls_per_minute,
        max_queued=request.limits.max_queued,
        minutes_per_day=request.limits.minutes_per_day,
        expires_at=expires_at,
        weight=request.weight,
    )
