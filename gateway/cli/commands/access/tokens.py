"""`dgx-music token`: create, list and revoke tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

from dgx_music.access.v1.access_pb2 import (
    CreateTokenRequest,
    ListTokensRequest,
    RevokeTokenRequest,
    Scope,
    Token,
    TokenLimits,
)
from gateway.cli.display.console import Console, escape_text, format_local_time
from gateway.cli.display.units import DATE, parse_age, parse_time
from gateway.cli.session.command_errors import BAD_INPUT, CommandError
from gateway.cli.session.runner import Session
from gateway.timeouts import CALL_TIMEOUT_SECONDS

PAGE_SIZE = 1000


async def create(session: Session, console: Console, request: CreateTokenRequest, expires: str | None) -> int:
    """Creates a token. Prints its secret to standard output, and how to use it to standard error."""
    if expires is not None:
        request.expires_at.FromDatetime(parse_expiry(expires, datetime.now(UTC)))
    created = await session.music.CreateToken(request, timeout=CALL_TIMEOUT_SECONDS)
    if console.as_json:
        console.print_message(created)
        return 0
    token = created.token
    expiry = f"until {format_local_time(token.expires_at)}" if token.HasField("expires_at") else "until it is revoked"
    console.print_notice(
        f"token {token.id} of {escape_text(token.name)} with scope {format_scope(token)} is valid {expiry}. "
        "Its secret is shown only now. On the client, set DGX_MUSIC_TOKEN to it, DGX_MUSIC_GATEWAY_ADDRESS to this "
        "server's address, and DGX_MUSIC_TLS_CA to the file of its certificate authority:"
    )
    print(created.secret)
    return 0


async def list_all(session: Session, console: Console) -> int:
    """Prints all tokens, newest first."""
    tokens = [token async for token in _iter_tokens(session)]
    if console.as_json:
        for token in tokens:
            console.print_message(token)
        return 0
    now = datetime.now(UTC)
    console.print_table(
        (("id", False), ("name", False), ("scope", False), ("state", False), ("created", False), ("limits", True)),
        (
            (
                token.id,
                escape_text(token.name),
                format_scope(token),
                format_validity(token, now),
                format_local_time(token.created_at),
                format_limits(token.limits, token.weight),
            )
            for token in tokens
        ),
        none="there are no tokens; make one with: dgx-music token create NAME",
    )
    return 0


async def revoke(session: Session, console: Console, name_or_id: str) -> int:
    """Revokes the token with this id, or else the valid one with this name."""
    now = datetime.now(UTC)
    found = None
    async for token in _iter_tokens(session):
        if token.id == name_or_id:
            found = token
            break
        if token.name == name_or_id and is_valid(token, now):
            found = token  # The id of another token may still be the same text.
    if found is None:
        raise CommandError(f"there is no valid token with the name or id {name_or_id!r}; see: dgx-music token list")
    revoked = await session.music.RevokeToken(RevokeTokenRequest(id=found.id), timeout=CALL_TIMEOUT_SECONDS)
    if console.as_json:
        console.print_message(revoked.token)
    else:
        console.print_notice(f"revoked token {found.id} of {escape_text(found.name)}")
    return 0


def parse_expiry(text: str, now: datetime) -> datetime:
    """Returns when a token expires that was given as e.g. "30d" or "2027-01-31", the last day on which it is valid.

    Raises CommandError if the text is neither, or in the past.
    """
    if DATE.fullmatch(text):
        expires_at = parse_time(text, "--expires", is_end=True)
    else:
        try:
            expires_at = now + parse_age(text, "--expires")
        except (CommandError, OverflowError) as error:
            problem = f"--expires: {text!r} is not a time; use for example 30d, 12h, 2w or 2027-01-31"
            raise CommandError(problem, BAD_INPUT) from error
    if expires_at <= now:
        raise CommandError(f"--expires: {text!r} is in the past", BAD_INPUT)
    return expires_at


def is_valid(token: Token, now: datetime) -> bool:
    """Returns whether a token has neither expired nor been revoked."""
    return format_validity(token, now) not in ("revoked", "expired")


def format_validity(token: Token, now: datetime) -> str:
    """Returns "valid", "expires 2027-01-31 …", "expired" or "revoked"."""
    if token.HasField("revoked_at"):
        return "revoked"
    if not token.HasField("expires_at"):
        return "valid"
    if token.expires_at.ToDatetime(tzinfo=UTC) <= now:
        return "expired"
    return f"expires {format_local_time(token.expires_at)}"


def format_scope(token: Token) -> str:
    """Returns for example "generate"."""
    return Scope.Name(token.scope).removeprefix("SCOPE_").lower()


def format_limits(limits: TokenLimits, weight: float = 1.0) -> str:
    """Returns for example "weight 3, 60 calls/min, 5 queued, 30 min/day"."""
    shown = (
        f"weight {weight:g}" if weight not in (0.0, 1.0) else "",
        f"{limits.calls_per_minute} calls/min" if limits.calls_per_minute else "",
        f"{limits.max_queued} queued" if limits.max_queued else "",
        f"{limits.minutes_per_day:g} min/day" if limits.minutes_per_day else "",
    )
    return ", ".join(filter(None, shown))


async def _iter_tokens(session: Session) -> AsyncIterator[Token]:
    request = ListTokensRequest(page_size=PAGE_SIZE)
    while True:
        page = await session.music.ListTokens(request, timeout=CALL_TIMEOUT_SECONDS)
        for token in page.tokens:
            yield token
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token
