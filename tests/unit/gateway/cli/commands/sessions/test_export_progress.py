"""The progress of an export where there is no terminal."""

from __future__ import annotations

import pytest

from gateway.cli.commands.sessions.export_progress import show_progress
from gateway.cli.display.console import Console


@pytest.mark.parametrize(("as_json", "lines"), [(False, ["  0%  a: audio", " 50%  a: stems"]), (True, [])])
def test_each_step_is_a_line(capsys: pytest.CaptureFixture[str], as_json: bool, lines: list[str]) -> None:
    with show_progress(Console(as_json=as_json)) as report:
        for text, share in (("a: audio", 0.0), ("a: audio", 0.2), ("a: stems", 0.5)):
            report(text, share)
    assert capsys.readouterr().err.splitlines() == lines
