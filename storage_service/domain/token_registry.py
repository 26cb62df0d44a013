"""Tokens: the secrets with which callers from other machines prove who they are and what they may do.

Only the hash of a secret is stored.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, func, or_, select, text, tuple_, update
from sqlalchemy.orm import Session

from dgx_music.errors import AlreadyExists, InvalidArgument, NotFound, Unauthenticated
from dgx_music.limits import MAX_WEIGHT, MIN_WEIGHT
from service_runtime.access import token_format
from service_runtime.access.caller import Scope
from service_runtime.rpc.paging import Page
from service_runtime.validation import check_finite, check_range, check_text
from storage_service.db.access_models import Token
from storage_service.db.clock import now
from storage_service.db.models import REFRESH_FROM_RETURNING
from storage_service.db.upsert import dialect_name
from storage_service.domain.page_tokens import (
    decode_page_token,
    hash_filters,
    parse_timestamp,
    split_page,
)

MAX_TOKEN_NAME_CHARACTERS = 64
GRANTABLE_SCOPES = (Scope.READ, Scope.GENERATE, Scope.ADMIN)
"""What a token may grant: only services have SERVICE."""

_MAX_COUNT = 2**31 - 1


@dataclass(frozen=True)
class NewToken:
    """A request for a token. Errors use the field names of CreateTokenRequest."""

    name: str
    scope: Scope | None
    calls_per_minute: int = 0
    max_queued: int = 0
    minutes_per_day: float = 0.0
    expires_at: datetime | None = None
    weight: float = 0.0
    """0 for 1."""

    def check(self) -> None:
        """Raises InvalidArgument for the first invalid field."""
        check_text("name", self.name, MAX_TOKEN_NAME_CHARACTERS)
        if not self.name or self.name != self.name.strip() or not self.name.isprintable():
            # Space at its ends is lost between the services, and with it the name by which the limits are found.
            raise InvalidArgument(
                "name", "must have 1 to 64 printable characters, without space at its ends, e.g. studio-laptop"
            )
        if self.scope not in GRANTABLE_SCOPES:
            raise InvalidArgument("scope", "must be SCOPE_READ, SCOPE_GENERATE or SCOPE_ADMIN")
        check_range("limits.calls_per_minute", self.calls_per_minute, 0, _MAX_COUNT)
        check_range("limits.max_queued", self.max_queued, 0, _MAX_COUNT)
        check_finite("limits.minutes_per_day", self.minutes_per_day)
        if self.weight:
            check_range("weight", self.weight, MIN_WEIGHT, MAX_WEIGHT)


def create_token(session: Session, new: NewToken) -> tuple[Token, str]:
    """Creates a token. Returns it and its secret, which can't be had later.

    Raises InvalidArgument for an invalid field, and AlreadyExists if a valid token has the name.
    """
    new.check()
    if dialect_name(session) == "postgresql":  # On SQLite, there is only one writer anyway.
        session.execute(text("LOCK TABLE tokens IN SHARE ROW EXCLUSIVE MODE"))
    current = session.scalar(select(now()))
    assert current is not None
    if new.expires_at is not None and new.expires_at <= current:
        raise InvalidArgument("expires_at", f"must be in the future, but it is now {current:%Y-%m-%d %H:%M:%S} UTC")
    if (namesake := find_valid(session, new.name)) is not None:
        raise AlreadyExists(
            f"token {namesake.id} already has the name {new.name!r}; revoke it first, or choose another name",
            reason="TOKEN_EXISTS",
            metadata={"name": new.name, "id": namesake.id},
        )
    assert new.scope is not None
    token_id, secret = token_format.create_token()
    token = Token(
        id=token_id,
        name=new.name,
        scope=new.scope.value,
        secret_sha256=token_format.hash_token(secret),
        calls_per_minute=new.calls_per_minute,
        max_queued=new.max_queued,
        minutes_per_day=new.minutes_per_day,
        weight=new.weight or 1.0,
        created_at=current,
        expires_at=new.expires_at,
    )
    session.add(token)
    session.flush()
    return token, secret


def list_tokens(session: Session, page: Page) -> tuple[list[Token], str]:
    """Returns a page of all tokens, newest first, and the token of the next page, which is empty on the last."""
    filters_hash = hash_filters("tokens")
    newest_first = select(Token).order_by(Token.created_at.desc(), Token.id.desc()).limit(page.limit + 1)
    if page.token:
        last = decode_page_token(page.token, filters_hash, parse_timestamp, _parse_id)
        newest_first = newest_first.where(tuple_(Token.created_at, Token.id) < last)
    rows = list(session.scalars(newest_first))
    return split_page(rows, page.limit, filters_hash, lambda row: [row.created_at.isoformat(), row.id])


def _parse_id(text: str) -> str:
    if not token_format.is_token_id(text):
        raise ValueError("not the id of a token")
    return text


def revoke_token(session: Session, token_id: str) -> Token:
    """Revokes a token. Revoking it again changes nothing. Raises NotFound if there is none with this id."""
    revoked = update(Token).where(Token.id == token_id).values(revoked_at=func.coalesce(Token.revoked_at, now()))
    statement = revoked.returning(Token)
    token = None
    if token_format.is_token_id(token_id):
        token = session.scalars(statement, execution_options=REFRESH_FROM_RETURNING).one_or_none()
    if token is None:
        raise NotFound("token", token_id, "`dgx-music token list` shows the ids")
    return token


def verify_token(session: Session, token_id: str, secret_sha256: bytes) -> Token:
    """Returns the token with this id if the hash is that of its secret and it is valid now.

    Raises Unauthenticated otherwise, always with the same message, which tells a stranger nothing about the tokens.
    """
    token = None
    if token_format.is_token_id(token_id):
        token = session.scalar(select(Token).where(Token.id == token_id, _is_valid()))
    if token is None or not hmac.compare_digest(token.secret_sha256, secret_sha256):
        raise Unauthenticated(
            "the token is wrong, has expired or was revoked; ask the server's administrator for a new one "
            "(`dgx-music token create`)",
            reason="TOKEN_INVALID",
        )
    return token


def find_valid(session: Session, name: str) -> Token | None:
    """Returns the token with this name that is valid now; None if there is none."""
    return session.scalar(select(Token).where(Token.name == name, _is_valid()))


def _is_valid() -> ColumnElement[bool]:
    return Token.revoked_at.is_(None) & or_(Token.expires_at.is_(None), Token.expires_at > now())
