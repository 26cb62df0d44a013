"""Parsing --continue and --continue-seconds."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest
from gateway.cli.commands.generation.continuation_source import ContinuationSource, parse_continuation_source

from gateway.cli.session.command_errors import CommandError


def test_source_is_parsed_as_id_or_existing_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.wav").touch()
    id_ = str(uuid.uuid4())
    assert parse_continuation_source("", None) is None
    assert parse_continuation_source(id_.upper(), None) == ContinuationSource(id_, 0.0)
    assert parse_continuation_source("x.wav", 2.5) == ContinuationSource(Path("x.wav"), 2.5)
    os.mkfifo("pipe")
    assert parse_continuation_source("pipe", None) == ContinuationSource(Path("pipe"), 0.0)
    with pytest.raises(CommandError, match="is neither a valid id nor an existing file"):
        parse_continuation_source(str(tmp_path), None)
    with pytest.raises(CommandError, match=r"y\.wav is neither a valid id nor an existing file"):
        parse_continuation_source("y.wav", None)
    with pytest.raises(CommandError, match="only be used together with --continue"):
        parse_continuation_source("", 5.0)
