"""What a token looks like."""

from __future__ import annotations

import hashlib

import pytest

from dgx_music.errors import Unauthenticated
from service_runtime.access.token_format import create_token, hash_token, is_token_id, read_token_id


def test_created_tokens_are_read() -> None:
    created = [create_token() for _ in range(1000)]
    assert len({token for _, token in created}) == len(created)
    for token_id, token in created:
        assert read_token_id(token) == token_id
        assert token.startswith(f"dgxm_{token_id}_")
        assert hash_token(token) == hashlib.sha256(token.encode()).digest()


@pytest.mark.parametrize(
    "change", [lambda t: t[:-1], lambda t: t + "a", lambda t: t.upper(), lambda t: t + "\n", str.title]
)
def test_anything_else_is_not_a_token_and_not_in_the_message(change: object) -> None:
    token = change(create_token()[1])  # type: ignore[operator]
    with pytest.raises(Unauthenticated) as caught:
        read_token_id(token)
    assert token[15:] not in caught.value.message


@pytest.mark.parametrize("text", ["", "abc", "ABCDEFGH", "abcdefg\0", "abcdefgh\n", "abcdefghi", "abcdefg\u0663"])
def test_what_is_no_id_of_a_token_is_told(text: str) -> None:
    assert is_token_id(create_token()[0])
    assert not is_token_id(text)
