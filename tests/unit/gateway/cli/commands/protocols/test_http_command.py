"""`dgx-music http` before it serves."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gateway.cli.commands.protocols.http_command import resolve_settings
from gateway.cli.session.command_errors import CommandError


def test_address_of_the_option_precedes_that_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert resolve_settings(None, None).http_listen == "127.0.0.1:8080"
    monkeypatch.setenv("DGX_MUSIC_HTTP_LISTEN", "127.0.0.1:1")
    settings = resolve_settings(tmp_path, "127.0.0.1:2")
    assert (settings.http_listen, settings.data_dir) == ("127.0.0.1:2", tmp_path)
    assert resolve_settings(None, None).http_listen == "127.0.0.1:1"


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(CommandError, match=r"dgx-music\[http\]"):
        resolve_settings(None, None)
