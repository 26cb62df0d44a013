"""A search finds exactly what contains the text, whichever way it takes, and reads no table as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import product
from random import Random
from typing import Any

import pytest
from sqlalchemy import event, func, insert, select, text
from sqlalchemy.orm import Session

from service_runtime.rpc.paging import Page
from storage_service.db.database import Database
from storage_service.db.models import Generation, Prompt
from storage_service.domain import creation, listing
from storage_service.domain.creation import NewGeneration
from storage_service.domain.listing import GenerationFilter, PromptOrder, list_generations, list_prompts
from storage_service.domain.prompts import text_sha256
from storage_service.search import prompt_index
from storage_service.states import GenerationStatus

New = Callable[..., NewGeneration]

PROMPTS = (
    *("A calm PIANO, 100% soft", "drums_and bass", "drums and bass", "a", "ab", "%", 'it\'s "quoted" \\ back\\slash'),
    *("東京の夜", "京", "夜の東京 lo-fi", "\U0001f3b5 emoji \U0001f3b5", "Ünïcode ÜNÏCODE", "e\u0301 and é"),
    *("OR AND NOT NEAR(x)", "*", "  spaces  ", "'", "''", '"', ":*", "a & b | !c", "\\", "\ue000 private", "x" * 5000),
    *("two\nlines\ttab", "yzxyz"),
)
NEEDLES = (
    *("a", "A", "ab", "%", "_", "and", "AND", "100% S", "drums_and", "drums and bass", "a calm piano, 100% soft"),
    *("'", "''", '"', 's "QUO', '"quoted"', "t's ", "\\", "\\s", " \\ b", "*", ":*", "OR ", "NOT NEAR(", "!c"),
    *("東", "東京", "京の夜", "夜", "京x", "ü", "üNÏ", "É", "e\u0301", "\U0001f3b5", "\U0001f3b5 e", "\ue000"),
    *(" ", "  ", "   ", "\n", "s\nl", "z", "zz", "zzz", "xxx", "xyzxy", "x" * 4000, "x" * 5001),
)

WAYS = {
    "rare": (10**6, 10**9, 10**6, 0, 1),
    "common": (0, 0, 10**6, 0, 1),
    "common among old ones": (0, 0, 1, 0, 1),
    "most common among old ones": (0, 0, 1, 0, 10**6),
    "common among recent prompts": (0, 0, 1, 3, 1),
}
"""Way → how many prompts and uses are rare, how many rows are read of what is common, how many recent prompts are
tried, and as long as how many rows a prompt takes."""


@pytest.fixture(params=[*list(WAYS)[:2], *(pytest.param(one, marks=pytest.mark.slow) for one in list(WAYS)[2:])])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    take(request.param, monkeypatch)
    return str(request.param)


def take(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets all searches take this way."""
    prompts, uses, scanned, recent, rows_per_prompt = WAYS[way]
    monkeypatch.setattr(prompt_index, "RARE_PROMPTS", prompts)
    monkeypatch.setattr(prompt_index, "RARE_USES", uses)
    monkeypatch.setattr(listing, "SCANNED_ROWS", scanned)
    monkeypatch.setattr(listing, "SCANNED_PER_MATCH", 0)
    monkeypatch.setattr(listing, "MANY_PROMPTS", 0 if recent else 10**6)
    monkeypatch.setattr(listing, "RECENT_PROMPTS", recent)
    monkeypatch.setattr(listing, "ROWS_PER_PROMPT", rows_per_prompt)


def pages(session: Session, **chosen: Any) -> list[str]:
    """Returns the ids of the generations that a list has, page by page."""
    found: list[str] = []
    token = "first"
    while token:
        rows, token = list_generations(session, GenerationFilter(**chosen), Page(2, "" if token == "first" else token))
        found += [row.id for row in rows]
    return found


def contains(database: Database, prompt: str, needle: str, session: Session) -> bool:
    if database.is_sqlite:
        return needle.casefold() in prompt.casefold()
    return bool(session.scalar(select(func.strpos(func.lower(prompt), func.lower(needle)) > 0)))


def test_search_finds_what_contains_the_text(database: Database, new: New, way: str) -> None:
    asked = Random(7).sample(PROMPTS * 3, len(PROMPTS) * 3)
    with database.write() as session:
        rows = [creation.create(session, new(prompt=prompt, model_name=f"m{n % 2}")) for n, prompt in enumerate(asked)]
        newest = [(row.id, row.prompt, row.model_name) for row in rows[::-1]]
    with database.read() as session:
        for number, needle in enumerate(NEEDLES if way == "rare" else NEEDLES[::2]):
            matching = {prompt for prompt in PROMPTS if contains(database, prompt, needle, session)}
            expected = [(row_id, model) for row_id, prompt, model in newest if prompt in matching]
            found = [row.id for row in list_generations(session, GenerationFilter(prompt_contains=needle), Page())[0]]
            assert found == [row_id for row_id, _ in expected[:50]], needle
            used = {prompt for _, prompt, _ in newest} & matching
            by_use, _ = list_prompts(session, PromptOrder.MOST_USED, needle, Page())
            assert {prompt.text for prompt in by_use} == used, needle
            if number % 4 == 0:
                of_model = pages(session, prompt_contains=needle, model_name="m1")
                assert of_model == [row_id for row_id, model in expected if model == "m1"], needle
                recent, token = list_prompts(session, PromptOrder.MOST_RECENT, needle, Page(2))
                while token:
                    more, token = list_prompts(session, PromptOrder.MOST_RECENT, needle, Page(2, token))
                    recent += more
                assert sorted(prompt.text for prompt in recent) == sorted(used), needle


def test_search_is_combined_with_other_filters(database: Database, new: New, way: str) -> None:
    with database.write() as session:
        rows = creation.create_all(session, [new(prompt=f"piano {n % 3}", model_name=f"m{n % 2}") for n in range(12)])
        for number, row in enumerate(rows):
            session.execute(
                text("UPDATE generations SET rating = :rating, client = :client WHERE id = :id"),
                {"rating": number % 5 + 1, "client": f"c{number % 4}", "id": row.id},
            )
    with database.write() as session:
        session.execute(text("UPDATE generations SET status = 'failed' WHERE rating IN (1, 4) AND client <> 'c1'"))
    with database.read() as session:
        stored = session.scalars(select(Generation).order_by(Generation.created_at.desc(), Generation.id.desc())).all()
        moment = stored[5].created_at
        for chosen, is_meant in (
            ({"statuses": [GenerationStatus.FAILED]}, lambda row: row.is_failed),
            ({"statuses": [GenerationStatus.FAILED, GenerationStatus.PENDING]}, lambda row: True),
            ({"min_rating": 3}, lambda row: row.rating >= 3),
            (
                {"min_rating": 2, "statuses": [GenerationStatus.PENDING]},
                lambda row: row.rating >= 2 and row.is_pending,
            ),
            ({"client": "c1"}, lambda row: row.client == "c1"),
            ({"client": "c1", "model_name": "m1", "min_rating": 2}, lambda row: row.client == "c1" and row.rating >= 2),
            ({"model_name": "m0"}, lambda row: row.model_name == "m0"),
            ({"created_before": moment}, lambda row: row.created_at < moment),
            (
                {"created_after": moment, "model_name": "m1"},
                lambda row: row.created_at >= moment and row.model_name == "m1",
            ),
        ):
            expected = [row.id for row in stored if row.prompt.endswith("1") and is_meant(row)]
            assert pages(session, prompt_contains="ANO 1", **chosen) == expected, chosen


FAILED = GenerationStatus.FAILED
ROWS = 3000


@pytest.fixture
def filled(database: Database) -> Database:
    began = datetime(2026, 1, 1, tzinfo=UTC)
    generations, prompts = [], []
    for n in range(ROWS):
        moment = began + timedelta(seconds=n)
        prompt = f"{'old' if n < ROWS // 2 else 'new'} song number {n}"
        generations.append(
            {
                "id": f"00000000-0000-4000-8000-{n:012}",
                "prompt": prompt,
                "model_name": f"m{n % 3}",
                "status": GenerationStatus.PENDING,
                "duration_seconds": 1.0,
                "sample_rate": 32000,
                "channels": 1,
                "created_at": moment,
                "client": f"c{n % 7}",
            }
        )
        prompts.append({"text": prompt, "text_sha256": text_sha256(prompt), "last_used_at": moment})
    with database.write() as session:
        session.execute(insert(Generation), generations)
        session.execute(insert(Prompt), prompts)
        if not database.is_sqlite:
            session.execute(text("ANALYZE"))
    return database


@pytest.fixture
def statements(filled: Database) -> Iterator[list[tuple[str, Any]]]:
    sent: list[tuple[str, Any]] = []

    def catch(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        sent.append((statement, parameters))

    event.listen(filled.engine, "before_cursor_execute", catch)
    yield sent
    event.remove(filled.engine, "before_cursor_execute", catch)


def test_no_search_reads_a_whole_table(
    filled: Database, statements: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for way, needle in product(WAYS, ("song number 17", "old", "d", "zq", "ZZZ")):
        take(way, monkeypatch)
        with filled.read() as session:
            statements.clear()
            list_generations(session, GenerationFilter(prompt_contains=needle), Page(10))
            list_generations(session, GenerationFilter(prompt_contains=needle, client="c1", model_name="m1"), Page(10))
            list_generations(session, GenerationFilter(prompt_contains=needle, statuses=[FAILED]), Page(10))
            for order in PromptOrder:
                list_prompts(session, order, needle, Page(10))
            for statement, parameters in list(statements):
                if "FROM" in statement:
                    require_indexes(session, statement, parameters)


def require_indexes(session: Session, statement: str, parameters: Any) -> None:
    connection = session.connection()
    if connection.dialect.name == "sqlite":
        lines = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
        assert not {"SCAN generations", "SCAN prompts"} & {row[-1].strip() for row in lines}, statement
        return
    # So few generations and prompts would be read as they lie, but not the trigrams of the prompts.
    for setting, tables in (("on", ("prompt_search",)), ("off", ("generations", "prompts", "prompt_search"))):
        connection.exec_driver_sql(f"SET LOCAL enable_seqscan = {setting}")
        plan = "\n".join(row[0] for row in connection.exec_driver_sql(f"EXPLAIN {statement}", parameters))
        for table in tables:
            assert f"Seq Scan on {table} " not in plan, (statement, plan)
    connection.exec_driver_sql("SET LOCAL enable_seqscan = on")
