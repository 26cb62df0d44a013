"""What is meant by --continue."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from gateway.cli.commands.continuation_source import Source, which_source
from gateway.cli.session.command_errors import CommandError


def test_a_source_is_an_id_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.wav").touch()
    id_ = str(uuid.uuid4())
    assert which_source("", None) is None
    assert which_source(id_.upper(), None) == Source(id_, 0.0)
    assert which_source("x.wav", 2.5) == Source(Path("x.wav"), 2.5)
    with pytest.raises(CommandError, match=r"y\.wav is neither"):
        which_source("y.wav", None)
    with pytest.raises(CommandError, match="with --continue only"):
        which_source("", 5.0)
