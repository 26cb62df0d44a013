"""Tokens: creation, lists, revocation, expiry and verification."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text, update

from dgx_music.errors import AlreadyExists, InvalidArgument, NotFound, Unauthenticated
from service_runtime.access.caller import Scope
from service_runtime.access.token_format import hash_token
from service_runtime.rpc.paging import Page
from storage_service.db.access_models import Token
from storage_service.db.clock import now_plus
from storage_service.db.database import Database
from storage_service.domain.token_registry import (
    NewToken,
    create_token,
    find_valid,
    list_tokens,
    revoke_token,
    verify_token,
)


def create(database: Database, name: str = "laptop", **values: Any) -> tuple[Token, str]:
    with database.write() as session:
        return create_token(session, NewToken(name, **{"scope": Scope.GENERATE, **values}))


def is_valid(database: Database, secret: str, token_id: str | None = None) -> bool:
    with database.read() as session:
        try:
            found = verify_token(session, token_id or secret.split("_")[1], hash_token(secret))
        except Unauthenticated:
            return False
        return found.id == secret.split("_")[1]


def test_secret_is_verified_and_not_stored(database: Database) -> None:
    token, secret = create(database, calls_per_minute=60, max_queued=5, minutes_per_day=2.5)
    assert len(secret) == len(f"dgxm_{token.id}_") + 43
    assert secret.startswith(f"dgxm_{token.id}_")
    assert token.granted_scope is Scope.GENERATE
    assert is_valid(database, secret)
    with database.read() as session:
        stored = str(session.execute(text("SELECT * FROM tokens")).mappings().one())
    assert secret.partition(token.id)[2] not in stored


def test_wrong_secrets_are_rejected_alike(database: Database) -> None:
    token, secret = create(database)
    other, _ = create(database, "other")
    assert not is_valid(database, secret[:-1])
    assert not is_valid(database, secret, other.id)
    messages = set()
    with database.read() as session:
        for token_id, digest in ((token.id, b""), ("", hash_token(secret)), ("aaaaaaaa", hash_token(secret))):
            with pytest.raises(Unauthenticated) as raised:
                verify_token(session, token_id, digest)
            messages.add(raised.value.message)
    assert len(messages) == 1


def test_revoked_token_is_invalid_and_frees_its_name(database: Database) -> None:
    token, secret = create(database)
    with pytest.raises(AlreadyExists, match=f"token {token.id} already has the name 'laptop'"):
        create(database)
    with database.write() as session:
        revoked = revoke_token(session, token.id)
        again = revoke_token(session, token.id)
        assert revoked.revoked_at is not None
        assert again.revoked_at == revoked.revoked_at
    assert not is_valid(database, secret)
    assert is_valid(database, create(database)[1])


def test_expired_token_is_invalid_and_frees_its_name(database: Database) -> None:
    token, secret = create(database, expires_at=datetime.now(UTC) + timedelta(days=1))
    assert is_valid(database, secret)
    with database.write() as session:
        session.execute(update(Token).where(Token.id == token.id).values(expires_at=now_plus(-0.001)))
    assert not is_valid(database, secret)
    assert is_valid(database, create(database)[1])


def test_unknown_token_cannot_be_revoked(database: Database) -> None:
    with pytest.raises(NotFound), database.write() as session:
        revoke_token(session, "unknown1")


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("name", {"name": ""}),
        ("name", {"name": "a" * 65}),
        ("name", {"name": "a\tb"}),
        ("name", {"name": " a"}),
        ("name", {"name": "a "}),
        ("scope", {"scope": None}),
        ("scope", {"scope": Scope.SERVICE}),
        ("limits.calls_per_minute", {"calls_per_minute": -1}),
        ("limits.max_queued", {"max_queued": 2**31}),
        ("limits.minutes_per_day", {"minutes_per_day": float("nan")}),
        ("weight", {"weight": 0.05}),
        ("weight", {"weight": 101.0}),
        ("weight", {"weight": float("nan")}),
        ("expires_at", {"expires_at": datetime(2020, 1, 1, tzinfo=UTC)}),
    ],
)
def test_invalid_field_is_named(url: str, database: Database, field: str, values: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument) as raised:
        create(database, **values)
    assert raised.value.field == field


def test_list_is_newest_first_in_pages(database: Database) -> None:
    ids = [create(database, f"n{number}")[0].id for number in range(5)]
    with database.write() as session:
        revoke_token(session, ids[2])
    listed, page_token = [], ""
    while True:
        with database.read() as session:
            rows, page_token = list_tokens(session, Page(2, page_token))
        listed += [row.id for row in rows]
        if not page_token:
            break
    assert listed == ids[::-1]
    with pytest.raises(InvalidArgument, match="page_token"), database.read() as session:
        list_tokens(session, Page(2, "nonsense"))


def test_one_of_many_concurrent_creations_with_a_name_wins(database: Database) -> None:
    def attempt(_: int) -> bool:
        try:
            create(database)
        except AlreadyExists:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(attempt, range(8))) == 1
    with database.read() as session:
        assert find_valid(session, "laptop") is not None
        assert find_valid(session, "nobody") is None
