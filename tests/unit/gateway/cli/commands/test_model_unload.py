"""Without a server there is nothing to unload."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.cli.commands.model_unload import unload
from gateway.embedded.ownership import Owner, enter
from tests.support.processes import free_ports


@pytest.mark.parametrize("is_turned_away", [False, True], ids=["nobody", "export alone"])
def test_without_a_server_nothing_is_done(
    is_turned_away: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unload("tone", tmp_path)
    assert list(tmp_path.iterdir()) == [], "no folder is left behind"
    with enter(tmp_path) as owner:
        assert isinstance(owner, Owner)
        if is_turned_away:
            owner.turn_away()
            unload("tone", tmp_path)
    unload("tone", tmp_path)
    monkeypatch.setenv("DGX_MUSIC_GENERATION_ADDRESS", f"127.0.0.1:{free_ports(1)[0]}")
    unload("tone", tmp_path)
