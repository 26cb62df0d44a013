"""`dgx-music ray` where there is no cluster that it could use."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.command_line import InProcessShell


def test_missing_extra_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    shell = InProcessShell(tmp_path, capfd)
    for command in ("up", "status", "down"):
        assert "dgx-music[ray]" in shell.error("ray", command, status=1)


def test_unusable_options_and_addresses_are_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shell = InProcessShell(tmp_path, capfd)
    assert "whole number" in shell.error("ray", "up", "--gpus-per-worker", "1.5", status=2)
    assert "ray job submit" in shell.error("ray", "status", "--address", "ray://head:10001", status=2)
    assert "RAY_ADDRESS" in shell.error("ray", "status", status=2, RAY_ADDRESS="ray://head:10001")
