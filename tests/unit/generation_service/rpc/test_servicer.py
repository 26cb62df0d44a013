"""Who makes a call, and how long it waits."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from generation_service.rpc.servicer import _origin_of


def context(peer: str, remaining_seconds: float | None = None) -> Any:
    return SimpleNamespace(peer=lambda: peer, time_remaining=lambda: remaining_seconds)


@pytest.mark.parametrize(
    ("peer", "client"),
    [("ipv4:10.0.0.5:51234", "ipv4:10.0.0.5"), ("ipv6:%5B::1%5D:51234", "ipv6:%5B::1%5D"), ("unix:", "unix")],
)
def test_all_connections_of_a_host_are_one_client(peer, client):
    assert _origin_of(context(peer)).client == client


def test_deadline_of_the_call_is_that_of_the_request():
    origin = _origin_of(context("unix:", 20.0))
    assert origin.deadline == pytest.approx(time.monotonic() + 20.0, abs=5.0)
    assert _origin_of(context("unix:")).deadline is None
