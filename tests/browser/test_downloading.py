"""What the page offers to download is what the server has, byte for byte, under a name that says what it is."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import soundfile

from tests.support.studio_processes import StudioProcesses
from tests.support.watched_page import OpenPage

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]
