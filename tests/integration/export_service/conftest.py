"""What tests of whole services have in common."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.export_client import Client, serving


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    """An export service on a data directory of its own, and its client."""
    async with serving(tmp_path) as client:
        yield client
