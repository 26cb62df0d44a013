"""The caller of the current call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import IntEnum


class Scope(IntEnum):
    """What a caller may do; each scope includes those before it. The numbers are those of `access.proto`."""

    READ = 1
    GENERATE = 2
    ADMIN = 3
    SERVICE = 4


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls."""

    scope: Scope
    client: str = ""
    """The client on whose behalf the call is made: the name of its token, else what it calls itself, else its host."""
    host: str = ""
    """Where the connection comes from: an IP address, or "unix"."""
    token_id: str | None = None
    """The token that it showed; None if it showed none."""
    weight: float = 1.0
    """The client's share of what is generated, by that token."""


LOCAL_OWNER = Caller(Scope.ADMIN)
"""The caller where no call is being served, e.g. in a test or a background task."""

_caller: ContextVar[Caller] = ContextVar("caller", default=LOCAL_OWNER)


def current_caller() -> Caller:
    """Returns the caller of the call that this code serves."""
    return _caller.get()


def set_caller(caller: Caller) -> None:
    """Makes `caller` the current one for the rest of the current task, which serves its call."""
    _caller.set(caller)


@contextmanager
def calling_as(caller: Caller) -> Iterator[None]:
    """Makes `caller` the current one while the block runs."""
    token = _caller.set(caller)
    try:
        yield
    finally:
        _caller.reset(token)
