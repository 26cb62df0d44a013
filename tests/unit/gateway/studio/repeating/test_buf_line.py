"""Lines of `buf curl`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from dgx_music.storage.v1.storage_pb2 import CreateGenerationRequest
from gateway.studio.repeating.buf_line import METHOD, buf_line
from gateway.studio.repeating.repeat_request import GatewayAccess

REQUEST = CreateGenerationRequest(prompt='-it\'s $HOME\n"猫"', seed=2**63 - 1, duration_seconds=0.1)
TOKEN = ["--header", "Authorization: Bearer $DGX_MUSIC_TOKEN"]


@pytest.mark.parametrize(
    ("access", "rest"),
    [
        (GatewayAccess("127.0.0.1:1"), [f"http://127.0.0.1:1/{METHOD}"]),
        (GatewayAccess("unix:/a b", data_dir=Path("/d")), ["--unix-socket", "/a b", f"http://localhost/{METHOD}"]),
        (GatewayAccess("a.b:1", uses_tls=True), [f"https://a.b:1/{METHOD}"]),
        (
            GatewayAccess("a.b:1", uses_tls=True, has_own_ca=True, requires_token=True),
            [*TOKEN, "--cacert", "$DGX_MUSIC_TLS_CA", f"https://a.b:1/{METHOD}"],
        ),
        (GatewayAccess("", requires_token=True), [*TOKEN, f"http://$DGX_MUSIC_GATEWAY_ADDRESS/{METHOD}"]),
    ],
)
def test_request_is_one_word_and_the_server_is_found(access: GatewayAccess, rest: list[str]) -> None:
    line = buf_line(REQUEST, access)
    words = shlex.split(line)
    data = words[words.index("--data") + 1]
    assert json.loads(data) == {"prompt": REQUEST.prompt, "seed": str(2**63 - 1), "durationSeconds": 0.1}
    assert words[words.index("--data") + 2 :] == rest
    assert ("--schema" in words) is access.requires_token
    # In double quotes, the shell puts the values in.
    assert ('"$DGX_MUSIC_TLS_CA"' in line) is access.has_own_ca
    assert ('Bearer $DGX_MUSIC_TOKEN"' in line) is access.requires_token
