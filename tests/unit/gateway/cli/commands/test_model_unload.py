"""`models remove` without a server to unload the model from."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.cli.commands.model_unload import unload
from gateway.embedded.ownership import Owner, acquire_or_join
from tests.support.processes import free_ports


@pytest.mark.parametrize("is_served_alone", [False, True], ids=["no owner", "export alone"])
def test_unload_without_server_does_nothing(
    is_served_alone: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unload("tone", tmp_path)
    assert list(tmp_path.iterdir()) == [], "a folder was created"
    with acquire_or_join(tmp_path) as owner:
        assert isinstance(owner, Owner)
        if is_served_alone:
            owner.refuse_clients()
            unload("tone", tmp_path)
    unload("tone", tmp_path)
    monkeypatch.setenv("DGX_MUSIC_GENERATION_ADDRESS", f"127.0.0.1:{free_ports(1)[0]}")
    unload("tone", tmp_path)
