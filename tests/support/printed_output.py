"""What commands print whose services run in the process of the test."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from gateway.cli.session.runner import Session
from tests.support.embedded_services import EmbeddedServices

LOG_LINE = re.compile(r"\d{4}-\d\d-\d\d .*\[(debug|info) ")
Captured = pytest.CaptureFixture[str]


def printed(capsys: Captured) -> str:
    """Returns standard output without the log of the services in this process."""
    captured = capsys.readouterr()
    print(captured.err, end="", file=sys.stderr)  # Stays readable for the next readouterr().
    return "".join(line for line in captured.out.splitlines(keepends=True) if not LOG_LINE.match(line))


def session_for(services: EmbeddedServices, data_dir: Path) -> Session:
    return Session(services.music, data_dir, is_persistent=False)
