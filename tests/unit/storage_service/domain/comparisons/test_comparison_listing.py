"""Lists of comparisons in pages."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import func

from dgx_music.errors import InvalidArgument
from service_runtime.rpc.paging import Page
from storage_service.db.database import Database
from storage_service.db.models import Generation
from storage_service.domain import lifecycle
from storage_service.domain.comparisons.comparison_creation import NewComparison, create_comparison
from storage_service.domain.comparisons.comparison_listing import list_comparisons
from storage_service.states import GenerationStatus


def test_pages_go_from_the_newest_on(database: Database, row_in: Callable[..., Generation]) -> None:
    takes = [row_in(GenerationStatus.COMPLETED, completed_at=func.now(), file_path="a.wav").id for _ in range(3)]
    saved = []
    for number in range(7):
        with database.write() as session:
            new = NewComparison([takes[number % 3], takes[(number + 1) % 3]])
            saved.insert(0, create_comparison(session, new).id)
    with database.read() as session:
        token, seen = "", []
        for size in (3, 3, 3):
            rows, token = list_comparisons(session, "", Page(size, token))
            seen += [row.id for row in rows]
            assert bool(token) == (len(seen) < 7)
        assert seen == saved

        of_first, token = list_comparisons(session, takes[0].upper(), Page(2))
        rest, end = list_comparisons(session, takes[0], Page(10, token))
        assert [row.id for row in [*of_first, *rest]] == [saved[6 - number] for number in (6, 5, 3, 2, 0)]
        assert end == ""
        assert all(len(row.entries) == 2 for row in rest)
        with pytest.raises(InvalidArgument) as raised:
            list_comparisons(session, takes[1], Page(10, token))
        assert raised.value.field == "page_token"
        with pytest.raises(InvalidArgument) as raised:
            list_comparisons(session, "x", Page())
        assert raised.value.field == "generation_id"
    with database.write() as session:
        lifecycle.remove(session, takes[0])
    with database.read() as session:
        assert list_comparisons(session, takes[0], Page()) == ([], "")
