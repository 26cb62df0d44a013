"""What a token looks like: `dgxm_<id>_<secret>`, and how it is stored: as a hash."""

from __future__ import annotations

import hashlib
import re
import secrets
import string

from dgx_music.errors import Unauthenticated

PREFIX = "dgxm"
"""Lets people, and programs that look for leaked secrets, recognize ours."""

_ID_CHARACTERS, _ID_LENGTH = string.ascii_lowercase + string.digits, 8
_SECRET_BYTES = 32
_ID = re.compile(rf"[a-z0-9]{{{_ID_LENGTH}}}")
_TOKEN = re.compile(rf"{PREFIX}_(?P<id>{_ID.pattern})_[A-Za-z0-9_-]{{43}}")
"""32 bytes are 43 characters of base64url."""

MALFORMED_TOKEN = "TOKEN_MALFORMED"
"""Reason of the error for what is no token of ours."""


def create_token() -> tuple[str, str]:
    """Returns a new token's id and the token itself, which is random and unguessable."""
    token_id = "".join(secrets.choice(_ID_CHARACTERS) for _ in range(_ID_LENGTH))
    return token_id, f"{PREFIX}_{token_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"


def is_token_id(text: str) -> bool:
    """Returns whether a token could have this id."""
    return _ID.fullmatch(text) is not None


def read_token_id(token: str) -> str:
    """Returns the id of a token. Raises Unauthenticated, without the token in its message, if it is none."""
    match = _TOKEN.fullmatch(token)
    if match is None:
        raise Unauthenticated(
            f"this is not a token of DGX Music: a token begins with {PREFIX}_ and comes from `dgx-music token create`",
            reason=MALFORMED_TOKEN,
        )
    return match["id"]


def hash_token(token: str) -> bytes:
    """Returns the SHA-256 of the whole token, 32 bytes. It has 256 random bits, so that a slow hash adds nothing."""
    return hashlib.sha256(token.encode()).digest()
