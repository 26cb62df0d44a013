"""Frequent queries use an index, so that their cost does not grow with the number of rows.

The statements are captured as the code sends them and explained on a table of 2,000 rows.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event, insert, text
from sqlalchemy.orm import Session

from service_runtime.rpc.paging import Page
from storage_service import api
from storage_service.db.database import Database
from storage_service.db.models import Generation, Prompt
from storage_service.domain import leases, lifecycle, queue
from storage_service.domain.listing import GenerationFilter, PromptOrder, list_generations, list_prompts
from storage_service.domain.prompts import text_sha256
from storage_service.domain.statistics import compute_statistics
from storage_service.states import GenerationStatus

PENDING, PROCESSING, COMPLETED, FAILED, CANCELLED = GenerationStatus
ROWS = 2000
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
AN_ID = "00000000-0000-4000-8000-000000000007"


@pytest.fixture
def filled(database: Database) -> Database:
    """Mostly COMPLETED, as a database gets; and 100 rows in each other state."""
    others = [PENDING, PROCESSING, FAILED, CANCELLED]
    generations, prompts = [], []
    for n in range(ROWS):
        moment = BEGAN + timedelta(seconds=n)
        status = others[n // 20 % 4] if n % 20 == 0 else COMPLETED
        generations.append(
            {
                "id": f"00000000-0000-4000-8000-{n:012}",
                "prompt": f"p{n}",
                "model_name": f"m{n % 3}",
                "status": status,
                "duration_seconds": 1.0,
                "sample_rate": 32000,
                "channels": 1,
                "created_at": moment,
                "ranked_at": moment if status in (PENDING, PROCESSING) else None,
                "client": f"c{n % 7}",
                "lease_expires_at": moment if status is PROCESSING else None,
                "lease_check_at": moment if status is PROCESSING else None,
                "metadata_": {},
                "rating": n % 5 + 1 if n % 100 == 0 else None,
                "bpm": float(60 + n % 120) if status is COMPLETED else None,
                "music_key": "A minor" if n % 24 == 1 else None,
            }
        )
        prompts.append({"text": f"p{n}", "text_sha256": text_sha256(f"p{n}"), "last_used_at": moment})
    with database.write() as session:
        session.execute(insert(Generation), generations)
        session.execute(insert(Prompt), prompts)
        if not database.is_sqlite:  # Nobody tells a SQLite database what its tables hold.
            session.execute(text("ANALYZE"))
    return database


def plans_of(database: Database, work: Callable[[Session], Any]) -> list[str]:
    """The plan of each statement that `work` sends about our rows."""
    sent: list[tuple[str, Any]] = []

    def catch(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if "FROM generations" in statement or "FROM prompts" in statement or "UPDATE generations" in statement:
            sent.append((statement, parameters))

    event.listen(database.engine, "before_cursor_execute", catch)
    with database.write() as session:
        work(session)
        event.remove(database.engine, "before_cursor_execute", catch)
        connection = session.connection()
        if not database.is_sqlite:  # So few rows would be read as they lie.
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            connection.exec_driver_sql("SET LOCAL enable_bitmapscan = off")
        plans = []
        for statement, parameters in sent:
            prefix = "EXPLAIN QUERY PLAN" if database.is_sqlite else "EXPLAIN"
            rows = connection.exec_driver_sql(f"{prefix} {statement}", parameters).all()
            plans.append("\n".join(row[-1] for row in rows))
        session.rollback()
    return plans


def newest(**chosen: Any) -> Callable[[Session], Any]:
    return lambda session: list_generations(session, GenerationFilter(**chosen), Page(10))


def second_page(session: Session) -> None:
    _, token = list_generations(session, GenerationFilter(statuses=[COMPLETED]), Page(10))
    list_generations(session, GenerationFilter(statuses=[COMPLETED]), Page(10, token))


PRIMARY = "pk_generations|sqlite_autoindex_generations_1"
CREATED, STATUS, MODEL = (
    f"ix_generations_{name}" for name in ("created_at", "status_created_at", "model_name_created_at")
)
MUSIC = "ix_generations_bpm"
LEASES, WAITING, QUEUE, RATED = (f"ix_generations_{name}" for name in ("leases", "waiting", "queue", "rated"))

EXPIRED = f"{PRIMARY}|{STATUS}|{LEASES}"
"""By id, or by status: what is being made is no more than there are workers."""


CASES: list[tuple[Callable[[Session], Any], list[str]]] = [
    (lambda s: lifecycle.get(s, AN_ID), [PRIMARY]),
    (newest(), [CREATED]),
    (newest(statuses=[FAILED]), [STATUS]),
    (newest(statuses=[COMPLETED]), [f"{STATUS}|{CREATED}"]),  # Nearly all are: either will do.
    (newest(statuses=[PENDING, FAILED, CANCELLED]), [STATUS]),
    (newest(model_name="m1"), [f"{MODEL}|{CREATED}"]),
    (newest(created_before=BEGAN + timedelta(seconds=1000)), [CREATED]),
    (newest(min_rating=5), [RATED]),
    (newest(min_rating=1), [RATED]),
    (newest(min_rating=5, statuses=[COMPLETED]), [RATED]),
    (newest(min_rating=5, statuses=[FAILED], model_name="m1"), [RATED]),
    (newest(min_rating=4, statuses=[COMPLETED], created_before=BEGAN + timedelta(seconds=1000)), [RATED]),
    (newest(min_rating=5, model_name="m1", created_after=BEGAN), [RATED]),
    (newest(min_rating=4, statuses=[COMPLETED, FAILED], model_name="m1"), [RATED]),
    (newest(min_bpm=61.0, max_bpm=61.0), [MUSIC]),
    (newest(min_bpm=300.0, statuses=[COMPLETED]), [MUSIC]),
    (newest(key="D# minor"), [MUSIC]),
    (newest(max_bpm=70.0, key="A minor", model_name="m1"), [MUSIC]),
    (second_page, [f"{STATUS}|{CREATED}"] * 2),
    (lambda s: list_prompts(s, PromptOrder.MOST_USED, "", Page(10)), ["ix_prompts_used_count_id"]),
    (lambda s: list_prompts(s, PromptOrder.MOST_RECENT, "", Page(10)), ["ix_prompts_last_used_at"]),
    (lambda s: leases.expire_leases(s), [LEASES, EXPIRED]),
    (lambda s: leases.claim(s, "w", ["m0"], 30.0), [QUEUE, LEASES, EXPIRED, QUEUE]),
    (lambda s: leases.claim(s, "w", ["m0", "m1"], 30.0), [QUEUE, LEASES, EXPIRED, QUEUE, QUEUE]),
    (queue.seconds_until_due, [LEASES]),
    (lambda s: queue.read_state(s, "c1", "m0", 0), [LEASES]),
    (queue.seconds_until_due, [WAITING]),
    (compute_statistics, [f"{STATUS}|{QUEUE}"]),
    (lambda s: api.count_generations(s, COMPLETED), []),
    (queue.list_models_with_pending, []),
]


def test_frequent_queries_use_indexes(filled: Database) -> None:
    for number, (work, indexes) in enumerate(CASES):
        plans = plans_of(filled, work)
        assert len(plans) == len(indexes), number
        for plan, index in zip(plans, indexes, strict=True):
            assert any(one in plan for one in index.split("|")), (number, plan)
            lines = plan.splitlines()
            for whole in ("Seq Scan on generations", "Seq Scan on prompts "):
                assert whole not in plan, number
            assert not {"SCAN generations", "SCAN prompts"} & set(lines), (number, plan)
            # A union sorts no more than a page of each, a claim the heads of its models' queues, a rank 16 leases.
            if not any(few in plan for few in ("UNION ALL", "VIRTUAL TABLE", "SCAN leased")):
                assert "USE TEMP B-TREE FOR ORDER BY" not in lines, (number, plan)
