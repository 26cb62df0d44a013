"""Shell completion."""

from __future__ import annotations

import pytest
import shellingham

from gateway.cli.commands.setup.completion import resolve_shell
from gateway.cli.invocation import run
from gateway.cli.session.command_errors import CommandError


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
