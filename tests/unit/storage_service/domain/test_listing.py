"""Pages and filters of lists."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dgx_music.errors import InvalidArgument
from service_runtime.rpc.paging import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE, Page
from storage_service.db.database import Database
from storage_service.db.models import Generation
from storage_service.domain import creation, lifecycle, prompts
from storage_service.domain.creation import NewGeneration
from storage_service.domain.listing import (
    GenerationFilter,
    PromptOrder,
    list_generations,
    list_prompts,
)
from storage_service.states import GenerationStatus

New = Callable[..., NewGeneration]
Row = Callable[..., Generation]


def test_pages_return_every_row_once_newest_first(database: Database, new: New) -> None:
    with database.write() as session:
        ids = [creation.create(session, new()).id for _ in range(7)]
    found: list[str] = []
    token, pages = "", 0
    while pages == 0 or token:
        with database.write() as session:
            rows, token = list_generations(session, GenerationFilter(), Page(3, token))
            found += [row.id for row in rows]
            creation.create(session, new())  # What comes meanwhile is newer: no later page has it.
        pages += 1
    assert found == ids[::-1]
    assert pages == 3


def test_rows_with_equal_timestamps_are_returned_once(database: Database, row_in: Row) -> None:
    first = row_in(GenerationStatus.PENDING)
    ids = {first.id} | {row_in(GenerationStatus.COMPLETED, created_at=first.created_at).id for _ in range(4)}
    found: list[str] = []
    token = "first"
    while token:
        with database.read() as session:
            rows, token = list_generations(session, GenerationFilter(), Page(2, "" if token == "first" else token))
        found += [row.id for row in rows]
    assert len(found) == 5
    assert set(found) == ids


def test_filters_are_combined(database: Database, new: New) -> None:
    with database.write() as session:
        piano = creation.create(session, new(prompt="A calm PIANO, 100% soft"))
        drums = creation.create(session, new(prompt="drums_and bass", model_name="other"))
        creation.create(session, new(prompt="drums and bass"))
        lifecycle.cancel(session, drums.id)

    def ids(**chosen: object) -> list[str]:
        with database.read() as session:
            return [row.id for row in list_generations(session, GenerationFilter(**chosen), Page())[0]]  # type: ignore[arg-type]

    assert ids(prompt_contains="piano") == [piano.id]
    assert ids(prompt_contains="100% S") == [piano.id]
    assert ids(prompt_contains="drums_and") == [drums.id]
    assert ids(prompt_contains="%") == [piano.id]
    assert ids(model_name="other") == [drums.id]
    assert ids(statuses=[GenerationStatus.CANCELLED, GenerationStatus.FAILED]) == [drums.id]
    assert ids(statuses=[GenerationStatus.PENDING], model_name="other") == []
    assert ids(created_before=drums.created_at) == [piano.id]
    assert len(ids(created_after=drums.created_at)) == 2
    assert len(ids(created_after=drums.created_at + timedelta(microseconds=1))) == 1


def test_sqlite_text_filter_ignores_case_beyond_ascii(
    tmp_path: Path, new: New, open_database: Callable[..., Database]
) -> None:
    from storage_service.db import schema

    database = open_database(f"sqlite:///{tmp_path}/own.db")
    schema.ensure(database)
    with database.write() as session:
        creation.create(session, new(prompt="STRAßENMUSIK ÉTÉ"))
        creation.create(session, new(prompt="STRASSENMUSIK"))
        for text, found in (("strassenmusik été", 1), ("Straßenmusik", 2), ("strassen", 2), ("ÉTÉ", 1), ("été?", 0)):
            assert len(list_generations(session, GenerationFilter(prompt_contains=text), Page())[0]) == found


def test_min_rating_pages_newest_first(database: Database, new: New) -> None:
    ratings = [3, 5, 0, 4, 5, 1, 2, 0, 4]
    with database.write() as session:
        rows = creation.create_all(session, [new(model_name=f"m{n % 2}") for n in range(len(ratings))])
        for row, rating in zip(rows, ratings, strict=True):
            lifecycle.rate(session, row.id, rating)
        lifecycle.cancel(session, rows[1].id)

    def places(**chosen: Any) -> list[int]:
        """Returns the places of the rows that match, page by page."""
        found: list[str] = []
        token = "first"
        while token:
            with database.read() as session:
                page = Page(2, "" if token == "first" else token)
                matching, token = list_generations(session, GenerationFilter(**chosen), page)
            found += [row.id for row in matching]
        return [next(n for n, row in enumerate(rows) if row.id == one) for one in found]

    assert places(min_rating=5) == [4, 1]
    assert places(min_rating=4) == [8, 4, 3, 1]
    assert places(min_rating=1) == [8, 6, 5, 4, 3, 1, 0]
    assert places(min_rating=0) == [8, 7, 6, 5, 4, 3, 2, 1, 0]
    assert places(min_rating=4, statuses=[GenerationStatus.CANCELLED, GenerationStatus.FAILED]) == [1]
    assert places(min_rating=1, statuses=list(GenerationStatus), model_name="m0") == [8, 6, 4, 0]


@pytest.mark.parametrize("token", ["x", "%%%", "e30=", "bnVsbA==", base64.urlsafe_b64encode(b'["a", 1, 2]').decode()])
def test_invalid_page_token_is_rejected(database: Database, token: str) -> None:
    for ask in (
        lambda s: list_generations(s, GenerationFilter(), Page(1, token)),
        lambda s: list_prompts(s, PromptOrder.MOST_USED, "", Page(1, token)),
        lambda s: list_prompts(s, PromptOrder.MOST_RECENT, "", Page(1, token)),
    ):
        with pytest.raises(InvalidArgument) as raised, database.read() as session:
            ask(session)
        assert raised.value.field == "page_token"


def test_page_token_with_other_filters_is_rejected(database: Database, new: New) -> None:
    with database.write() as session:
        for n in range(3):
            creation.create(session, new(prompt=f"piano {n}"))
        _, generations_token = list_generations(session, GenerationFilter(), Page(1))
        _, prompts_token = list_prompts(session, PromptOrder.MOST_USED, "", Page(1))
        for ask in (
            lambda: list_generations(session, GenerationFilter(model_name="sketch"), Page(1, generations_token)),
            lambda: list_generations(session, GenerationFilter(prompt_contains="x"), Page(1, generations_token)),
            lambda: list_generations(
                session, GenerationFilter(statuses=[GenerationStatus.PENDING]), Page(1, generations_token)
            ),
            lambda: list_generations(session, GenerationFilter(min_rating=1), Page(1, generations_token)),
            lambda: list_prompts(session, PromptOrder.MOST_USED, "p", Page(1, prompts_token)),
        ):
            with pytest.raises(InvalidArgument) as raised:
                ask()  # type: ignore[no-untyped-call]
            assert raised.value.field == "page_token"
        rows, _ = list_generations(session, GenerationFilter(), Page(2, generations_token))
        assert [row.prompt for row in rows] == ["piano 1", "piano 0"]


@pytest.mark.parametrize("position", [[2**70, 1], [-1, 1], ["1", 1], [1, 1, 1], [1]])
def test_page_token_with_forged_count_is_rejected(database: Database, new: New, position: list[object]) -> None:
    with database.write() as session:
        for n in range(2):
            creation.create(session, new(prompt=f"piano {n}"))
        _, token = list_prompts(session, PromptOrder.MOST_USED, "", Page(1))
        filters_hash, *_ = json.loads(base64.urlsafe_b64decode(token))
        forged = base64.urlsafe_b64encode(json.dumps([filters_hash, *position]).encode()).decode()
        with pytest.raises(InvalidArgument) as raised:
            list_prompts(session, PromptOrder.MOST_USED, "", Page(1, forged))
        assert raised.value.field == "page_token"


@pytest.mark.parametrize("position", [["2026-01-01T00:00:00", "x"], ["2026-01-01T00:00:00+00:00", "\0"], [1, 2]])
def test_page_token_with_forged_row_is_rejected(database: Database, new: New, position: list[object]) -> None:
    with database.write() as session:
        for _ in range(2):
            creation.create(session, new())
        _, token = list_generations(session, GenerationFilter(), Page(1))
        filters_hash, *_ = json.loads(base64.urlsafe_b64decode(token))
        forged = base64.urlsafe_b64encode(json.dumps([filters_hash, *position]).encode()).decode()
        with pytest.raises(InvalidArgument) as raised:
            list_generations(session, GenerationFilter(), Page(1, forged))
        assert raised.value.field == "page_token"


def test_page_size_default_limit_and_negative(database: Database) -> None:
    assert Page(0).limit == DEFAULT_PAGE_SIZE
    assert Page(10**6).limit == MAX_PAGE_SIZE
    with pytest.raises(InvalidArgument) as raised, database.read() as session:
        list_generations(session, GenerationFilter(), Page(-1))
    assert raised.value.field == "page_size"


def test_invalid_filters_name_their_field(database: Database) -> None:
    with database.read() as session:
        for field, chosen in (
            ("prompt_contains", GenerationFilter(prompt_contains="\0")),
            ("model_name", GenerationFilter(model_name="m" * 201)),
            ("min_rating", GenerationFilter(min_rating=6)),
            ("min_rating", GenerationFilter(min_rating=-1)),
        ):
            with pytest.raises(InvalidArgument) as raised:
                list_generations(session, chosen, Page())
            assert raised.value.field == field
        with pytest.raises(InvalidArgument) as raised:
            list_prompts(session, PromptOrder.MOST_USED, "\0", Page())
        assert raised.value.field == "text_contains"


@pytest.mark.parametrize(
    ("order", "expected"),
    [(PromptOrder.MOST_USED, ["b", "c", "a"]), (PromptOrder.MOST_RECENT, ["c", "b", "a"])],
)
def test_prompts_are_ordered_by_use_or_time(database: Database, order: PromptOrder, expected: list[str]) -> None:
    with database.write() as session:
        for text in ("a", "b", "b", "c"):
            prompts.count_use(session, text)
    found: list[str] = []
    token = "first"
    while token:
        with database.read() as session:
            rows, token = list_prompts(session, order, "", Page(2, "" if token == "first" else token))
        found += [row.text for row in rows]
    assert found == expected
    with database.read() as session:
        assert [row.text for row in list_prompts(session, order, "B", Page())[0]] == ["b"]


def test_last_use_does_not_go_back_with_the_clock(database: Database) -> None:
    ahead = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    with database.write() as session:
        prompts.count_use(session, "a").last_used_at = ahead
    with database.write() as session:
        again = prompts.count_use(session, "a")
        assert (again.used_count, again.last_used_at) == (2, ahead)
