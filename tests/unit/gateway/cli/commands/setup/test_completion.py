"""Shell completion."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import shellingham

from gateway.cli.commands.setup.completion import resolve_shell
from gateway.cli.main import run
from gateway.cli.session.command_errors import CommandError
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


@pytest.mark.parametrize(
    ("shell", "part"),
    [("bash", "complete -o default -F"), ("zsh", "#compdef dgx-music"), ("fish", "complete --command")],
)
def test_script_is_shown(shell: str, part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", "show", shell]) == 0
    assert part in capsys.readouterr().out


def test_completion_is_one_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    out = capsys.readouterr().out
    assert "install-completion" not in out
    assert "show-completion" not in out


@pytest.mark.parametrize("detected", ["tcsh", ""])
def test_shell_that_is_not_known_must_be_named(detected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def detect() -> tuple[str, str]:
        if not detected:
            raise shellingham.ShellDetectionFailure
        return detected, ""

    monkeypatch.setattr(shellingham, "detect_shell", detect)
    with pytest.raises(CommandError, match="give one of bash, zsh, fish"):
        resolve_shell(None)


def test_shell_that_runs_the_command_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shellingham, "detect_shell", lambda: ("fish", "/bin/fish"))
    assert resolve_shell(None) == "fish"
