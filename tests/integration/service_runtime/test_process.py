"""Servers as processes of their own that can't run: one line says why."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command_line import environment

SECONDS = 60.0
INVALID = "error: DGX_MUSIC_METRICS_PORT=70000: Input should be less than or equal to 65535"
NETWORK = "error: 0.0.0.0:1 can be reached from the network, so it needs TLS; set DGX_MUSIC_TLS_CERTIFICATE"
CERTIFICATE = "error: DGX_MUSIC_TLS_CERTIFICATE=/dev/null: the file is not a certificate in PEM"


@pytest.mark.parametrize(
    "service", ["storage", *(pytest.param(one, marks=pytest.mark.slow) for one in ("export", "generation", "gateway"))]
)
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
    module = f"{service}_service.rpc.server".replace("gateway_service", "gateway")
    assert run_server(module, status, DGX_MUSIC_DATA_DIR=str(tmp_path), **{f"DGX_MUSIC_{setting}": value}).startswith(
        message
    )


def test_unusable_certificate_ends_server_with_one_line(tmp_path: Path) -> None:
    settings = {"DGX_MUSIC_DATA_DIR": str(tmp_path), "DGX_MUSIC_STORAGE_ADDRESS": "127.0.0.1:0"}
    settings |= {"DGX_MUSIC_TLS_CERTIFICATE": "/dev/null", "DGX_MUSIC_TLS_KEY": "/dev/null"}
    assert run_server("storage_service.rpc.server", 1, **settings) == CERTIFICATE


def run_server(module: str, status: int, **settings: str) -> str:
    """Returns the only line that a server prints before it ends with the status."""
    done = subprocess.run(
        [sys.executable, "-m", module],
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == status
    [line] = done.stderr.splitlines()
    return line
