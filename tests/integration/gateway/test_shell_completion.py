"""What bash completes after `dgx-music completion install`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from gateway.cli.invocation import run
from tests.support.command_line import DGX_MUSIC, environment

BASH = """\
source "$HOME/.bashrc"
complete_words() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _dgx_music_completion dgx-music; echo "${COMPREPLY[*]}"; }
complete_words dgx-music config s
complete_words dgx-music config set gateway
complete_words dgx-music completion install ''
"""


def test_bash_completes_commands_keys_and_choices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for _ in range(2):
        assert run(["completion", "install", "bash"]) == 0
    assert "installed completion for bash in" in capsys.readouterr().out
    assert (tmp_path / ".bashrc").read_text().count("source") == 1
    variables = environment(HOME=str(tmp_path), PATH=f"{DGX_MUSIC.parent}:{os.environ['PATH']}")
    done = subprocess.run(["bash", "--norc", "-c", BASH], env=variables, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["show set", "gateway_address", "bash zsh fish"]
