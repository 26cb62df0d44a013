"""What README.md says that `make demo` prints."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.support.command_line import InProcessShell

ROOT = Path(__file__).parents[3]
DIFFERS = ("model: ", "file  ", "generated in  ", "id  ")
"""How lines begin that are not the same in each run."""


def lines_that_stay(output: str) -> list[str]:
    return [line.rstrip() for line in output.splitlines() if not line.startswith(DIFFERS)]


def test_demo_prints_what_the_readme_shows(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (shown,) = re.findall(r"^\$ make demo\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    recipe = subprocess.run(["make", "--dry-run", "demo"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    prompt, options = re.search(r'generate "(.*)" (.*)', recipe).groups()  # type: ignore[union-attr]
    printed = InProcessShell(tmp_path, capfd).run("generate", prompt, *options.split()).stdout
    assert lines_that_stay(printed) == lines_that_stay(shown)
