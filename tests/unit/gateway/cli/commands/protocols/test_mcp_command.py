"""`dgx-music mcp` before it serves."""

from __future__ import annotations

import sys

import pytest

from gateway.cli.commands.protocols.mcp_command import require_extra
from gateway.cli.session.command_errors import CommandError


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    require_extra()
    monkeypatch.setitem(sys.modules, "mcp", None)
    with pytest.raises(CommandError, match=r"dgx-music\[mcp\]"):
        require_extra()
