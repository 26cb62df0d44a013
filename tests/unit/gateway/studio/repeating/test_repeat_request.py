"""How commands of the user's reach the gateway that the Studio calls."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import GatewaySettings
from gateway.studio.repeating.repeat_request import GatewayAccess, find_access

SOCKET = "unix:/data/run/gateway.sock"


@pytest.mark.parametrize(
    ("address", "settings", "is_for_strangers", "access"),
    [
        (SOCKET, {}, False, GatewayAccess(SOCKET, data_dir=Path("/data"))),
        ("a:1", {"gateway_address": "a:1"}, False, GatewayAccess("a:1")),
        (
            "a:1",
            {"gateway_address": "a:1", "tls_ca": __file__, "token": f"dgxm_abcdefgh_{'x' * 43}"},
            False,
            GatewayAccess("a:1", uses_tls=True, has_own_ca=True, requires_token=True),
        ),
        ("a:1", {"gateway_address": "a:1", "tls_ca": "system"}, False, GatewayAccess("a:1", uses_tls=True)),
        ("ipv4:1.2.3.4:5,1.2.3.5:5", {"gateway_address": "a:1"}, False, GatewayAccess("1.2.3.4:5")),
        # Those of another machine learn no folder or socket of this one.
        (SOCKET, {}, True, GatewayAccess("", requires_token=True)),
        ("127.0.0.1:50050", {}, True, GatewayAccess("", requires_token=True)),
        ("a.lan:50050", {}, True, GatewayAccess("a.lan:50050", requires_token=True)),
    ],
)
def test_access(address: str, settings: dict[str, str], is_for_strangers: bool, access: GatewayAccess) -> None:
    configured = GatewaySettings.model_validate({"data_dir": "/data", **settings})
    assert find_access(address, configured, is_for_strangers=is_for_strangers) == access
