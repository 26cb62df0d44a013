"""Which addresses only this machine can reach."""

from __future__ import annotations

import pytest

from service_runtime.rpc.binding import is_local


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("unix:/tmp/s", True),
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("localhost:1", True),
        ("[::1]:1", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("10.0.0.1:1", False),
        ("example.com:1", False),
    ],
)
def test_is_local(address: str, local: bool) -> None:
    assert is_local(address) is local
