"""Parsing the sources of --continue, --melody and --style."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest

from gateway.cli.commands.generation.audio_sources import parse_source
from gateway.cli.session.command_errors import CommandError


def test_source_is_parsed_as_id_or_existing_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.wav").touch()
    id_ = str(uuid.uuid4())
    assert parse_source("--melody", id_.upper()) == id_
    assert parse_source("--melody", "x.wav") == Path("x.wav")
    os.mkfifo("pipe")
    assert parse_source("--melody", "pipe") == Path("pipe")
    with pytest.raises(CommandError, match="is neither a valid id nor an existing file"):
        parse_source("--melody", str(tmp_path))
    with pytest.raises(CommandError, match=r"--style: y\.wav is neither a valid id nor an existing file"):
        parse_source("--style", "y.wav")
