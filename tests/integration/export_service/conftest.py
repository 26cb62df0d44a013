"""An export service and its client for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.export_client import ExportClient, run_export_service


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[ExportClient]:
    """A client of an export service with a data directory of its own."""
    async with run_export_service(tmp_path) as client:
        yield client
