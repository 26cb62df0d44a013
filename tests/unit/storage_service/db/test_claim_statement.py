"""The statement of a claim."""

from __future__ import annotations

import pytest

from storage_service.db.claim_statement import has_status
from storage_service.db.database import Database
from storage_service.states import GenerationStatus


@pytest.mark.parametrize("status", GenerationStatus)
def test_has_status_renders_literal_for_partial_indexes(database: Database, status: GenerationStatus) -> None:
    condition = has_status(status).compile(database.engine, compile_kwargs={"render_postcompile": True})
    assert str(condition) == f"generations.status = '{status}'"
