"""Commands with hostile arguments, settings and files of prompts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fuzz.command_lines import draw
from tests.support.command_line import InProcessShell, environment

SEED, COMMANDS = int(os.environ.get("FUZZ_SEED", "1")), int(os.environ.get("FUZZ_COMMANDS", "100"))


@pytest.mark.slow
def test_every_command_line_ends_with_a_reason(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shell, problems = InProcessShell(tmp_path / "data", capfd), []
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")  # Where a command writes files whose names are relative.
    with shell.serving_in_process():
        for number in range(COMMANDS):
            line = draw(SEED, number, tmp_path)
            try:
                done = shell._run(["--data-dir", str(shell.data_dir), *line.arguments], environment(**line.variables))
            except Exception as error:  # The user would see a traceback.
                problems.append(f"{line} raised {error!r}"[:2000])
            else:
                problems += line.judge(done.returncode, done.stdout, done.stderr)
    assert not problems, "\n".join(problems)
