"""Servers as processes of their own that can't run: one line says why."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command_line import environment

SECONDS = 60.0
INVALID = "error: DGX_MUSIC_METRICS_PORT=70000: Input should be less than or equal to 65535"
NETWORK = "error: 0.0.0.0:1 can be reached from the network, and this server has no TLS"


@pytest.mark.parametrize("service", ["storage", "export", "generation", "gateway"])
@pytest.mark.parametrize(
    ("setting", "value", "status", "message"),
    [
        (
            "METRICS_PORT",
            "70000",
            2,
            INVALID,
        ),
        ("LISTEN", "0.0.0.0:1", 1, NETWORK),
    ],
    ids=["invalid", "refused"],
)
def test_unusable_setting_ends_server_with_one_line(
    tmp_path: Path, service: str, setting: str, value: str, status: int, message: str
) -> None:
    settings = environment(DGX_MUSIC_DATA_DIR=str(tmp_path), **{f"DGX_MUSIC_{setting}": value})
    command = [sys.executable, "-m", f"{service}_service.rpc.server".replace("gateway_service", "gateway")]
    done = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == status
    [line] = done.stderr.splitlines()
    assert line.startswith(message)
