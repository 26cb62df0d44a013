"""Creation: idempotent per request id, with its prompt counted and every field validated."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import func, select

from dgx_music.errors import InvalidArgument
from service_runtime.audio.output_options import FileFormat, OutputOptions
from storage_service.db.database import Database
from storage_service.db.models import Generation, Prompt
from storage_service.domain import creation, prompts
from storage_service.domain.creation import NewGeneration
from storage_service.states import GenerationStatus

New = Callable[..., NewGeneration]
REQUEST_ID = "11111111-2222-4333-8444-55555555aaaa"
EDIT = {"source_id": REQUEST_ID, "kind": "EDIT_KIND_EXTEND_LEFT", "added_seconds": 2.0}


def continuation(source_id: str, seconds: float = 10.0) -> dict[str, Any]:
    return {"source_id": source_id, "seconds": seconds}


def test_create_is_pending_and_counts_prompt(database: Database, new: New) -> None:
    with database.write() as session:
        row = creation.create(
            session, new(seed=2**63 - 1, metadata={"a": [1, 2.5, None, {"b": "\0ü"}]}), max_attempts=5
        )
        drawn = creation.create(session, new())
    assert row.status is GenerationStatus.PENDING
    assert (row.seed, row.max_attempts, row.attempt, row.output) == (2**63 - 1, 5, 0, None)
    assert 0 <= drawn.seed < 2**32
    with database.read() as session:
        read = session.get_one(Generation, row.id)
        assert read.metadata_ == {"a": [1, 2.5, None, {"b": "\0ü"}]}
        assert read.created_at == row.created_at
        assert row.created_at < drawn.created_at
        counted = prompts.find(session, "a calm piano")
        assert counted is not None
        assert (counted.id, counted.used_count) == (1, 2)
        assert counted.first_used_at < counted.last_used_at


def test_longest_prompt_is_stored(database: Database, new: New) -> None:
    long = "".join(chr(0x4E00 + (n * 7919) % 20000) for n in range(9999)) + "\n"  # 30 kB that compress badly
    with database.write() as session:
        row = creation.create(session, new(prompt=long))
        creation.create(session, new(prompt=long[:-1]))
    with database.read() as session:
        assert session.get_one(Generation, row.id).prompt == long
        assert session.scalar(select(func.count()).select_from(Prompt)) == 2


def test_repeated_request_returns_first_generation(database: Database, new: New) -> None:
    with database.write() as session:
        first = creation.create(session, new(request_id=REQUEST_ID, metadata={"a": 1, "b": 2}))
    with database.write() as session:
        again = creation.create(session, new(request_id=REQUEST_ID.upper(), metadata={"b": 2, "a": 1}))
    assert again.id == first.id
    assert again.request_id == REQUEST_ID
    with database.read() as session:
        counted = prompts.find(session, "a calm piano")
        assert counted is not None
        assert counted.used_count == 1


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "another"},
        {"model_name": "other"},
        {"duration_seconds": 5.0},
        {"sample_rate": 44100},
        {"channels": 1},
        {"seed": 1},
        {"output": OutputOptions(FileFormat.WAV_FLOAT)},
        {"output": OutputOptions(ceiling_dbtp=-2.0)},
        {"sampling": {"temperature": 0.5}},
        {"continuation": continuation(REQUEST_ID)},
        {"conditioning": {"steps": 8}},
        {"edit": EDIT},
        {"loop": {"bars": 2, "bpm": 120.0}},
        {"variation_of": REQUEST_ID},
        {"metadata": {"a": 1}},
    ],
)
def test_reused_request_id_with_other_body_is_rejected(database: Database, new: New, change: dict[str, Any]) -> None:
    with database.write() as session:
        creation.create(session, new(request_id=REQUEST_ID))
    with pytest.raises(InvalidArgument) as raised, database.write() as session:
        creation.create(session, new(request_id=REQUEST_ID, **change))
    assert raised.value.field == "request_id"
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(Generation)) == 1
        assert session.scalar(select(func.count()).select_from(Prompt)) == 1


def test_concurrent_creates_with_one_request_id_make_one_row(database: Database, new: New) -> None:
    start = threading.Barrier(10)

    def work(times: int) -> set[str]:
        start.wait(60)
        ids = set()
        for _ in range(times):
            with database.write() as session:
                ids.add(creation.create(session, new(request_id=REQUEST_ID)).id)
        return ids

    with ThreadPoolExecutor(10) as pool:
        assert len(set().union(*pool.map(work, [5] * 10))) == 1
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(Generation)) == 1
        counted = prompts.find(session, "a calm piano")
        assert counted is not None
        assert counted.used_count == 1


def test_concurrent_prompt_uses_are_all_counted(database: Database, new: New) -> None:
    def work(times: int) -> None:
        for _ in range(times):
            with database.write() as session:
                creation.create(session, new())

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, [5] * 4))
    with database.read() as session:
        counted = prompts.find(session, "a calm piano")
        assert counted is not None
        assert counted.used_count == 20


def test_rolled_back_create_counts_nothing(database: Database, new: New) -> None:
    class Broken(Exception):
        pass

    with pytest.raises(Broken), database.write() as session:  # noqa: PT012
        creation.create(session, new())
        raise Broken
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(Generation)) == 0
        assert prompts.find(session, "a calm piano") is None


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("prompt", {"prompt": ""}),
        ("prompt", {"prompt": " \n\t\u2003"}),
        ("prompt", {"prompt": "x" * 10001}),
        ("prompt", {"prompt": "a\0b"}),
        ("prompt", {"prompt": "a\rb"}),
        ("prompt", {"prompt": "a\x1bb"}),
        ("prompt", {"prompt": "a\x7fb"}),
        ("prompt", {"prompt": "a\x85b"}),
        ("model_name", {"model_name": ""}),
        ("model_name", {"model_name": "m" * 201}),
        ("model_name", {"model_name": "m\0"}),
        ("duration_seconds", {"duration_seconds": 0.0}),
        ("duration_seconds", {"duration_seconds": -1.0}),
        ("duration_seconds", {"duration_seconds": 1e9}),
        ("duration_seconds", {"duration_seconds": 3600.1}),
        ("duration_seconds", {"duration_seconds": float("nan")}),
        ("duration_seconds", {"duration_seconds": float("inf")}),
        ("sample_rate_hz", {"sample_rate": 0}),
        ("sample_rate_hz", {"sample_rate": 192001}),
        ("channels", {"channels": 0}),
        ("channels", {"channels": 9}),
        ("seed", {"seed": -1}),
        ("seed", {"seed": 2**63}),
        ("sampling.temperature", {"sampling": {"temperature": 0.0}}),
        ("sampling.temperature", {"sampling": {"temperature": 10.1}}),
        ("sampling.temperature", {"sampling": {"temperature": float("nan")}}),
        ("sampling.top_k", {"sampling": {"top_k": -1}}),
        ("sampling.top_k", {"sampling": {"top_k": 2049}}),
        ("sampling.top_p", {"sampling": {"temperature": 1.0, "top_p": 1.01}}),
        ("sampling.top_p", {"sampling": {"top_p": float("nan")}}),
        ("sampling.guidance_scale", {"sampling": {"guidance_scale": -0.1}}),
        ("sampling.guidance_scale", {"sampling": {"guidance_scale": float("inf")}}),
        ("continuation.source_id", {"continuation": continuation("")}),
        ("continuation.source_id", {"continuation": continuation("../a.wav")}),
        ("continuation.seconds", {"continuation": continuation(REQUEST_ID, 0.4)}),
        ("continuation.seconds", {"continuation": continuation(REQUEST_ID, 25.1)}),
        ("continuation.seconds", {"continuation": continuation(REQUEST_ID, float("nan"))}),
        ("conditioning.steps", {"conditioning": {"steps": 501}}),
        (
            "conditioning.sections[0].end_seconds",
            {"conditioning": {"sections": [{"end_seconds": 5.0, "prompt": "longer than the music"}]}},
        ),
        ("edit.added_seconds", {"edit": EDIT | {"added_seconds": 0.0}}),
        ("edit", {"edit": EDIT, "continuation": continuation(REQUEST_ID)}),
        ("edit", {"edit": EDIT, "loop": {"bars": 2, "bpm": 120.0}}),
        ("loop.bars", {"loop": {"bars": 65, "bpm": 120.0}}),
        ("duration_seconds", {"loop": {"bars": 3, "bpm": 120.0}}),
        ("variation_of", {"variation_of": "x"}),
        ("metadata", {"metadata": {"a": "x" * 16384}}),
        ("metadata", {"metadata": {"a": float("nan")}}),
        ("request_id", {"request_id": "again"}),
    ],
)
def test_create_with_invalid_field_names_it(database: Database, new: New, field: str, change: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument) as raised, database.write() as session:
        creation.create(session, new(**change))
    assert raised.value.field == field
    assert raised.value.message.startswith(field)
    assert len(raised.value.message) < 300
    assert "e+" not in raised.value.message  # 2^63 - 1 is printed to the last digit.


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "x" * 10000},
        {"prompt": "two\n\tlines"},
        {"duration_seconds": 0.1},
        {"duration_seconds": 3600.0},
        {"seed": 0},
        {"sample_rate": 8000, "channels": 1},
        {"sampling": {"temperature": 1e-9, "top_k": 0, "top_p": 0.0, "guidance_scale": 0.0}},
        {"sampling": {"temperature": 10.0, "top_k": 2048, "top_p": 1.0, "guidance_scale": 20.0}},
        {"continuation": continuation(REQUEST_ID, 0.5)},
        {"continuation": continuation(REQUEST_ID, 25.0)},
        {"edit": EDIT, "variation_of": REQUEST_ID, "conditioning": {"steps": 500}},
        {"loop": {"bars": 2, "bpm": 120.0}},
    ],
)
def test_boundary_values_are_accepted(new: New, change: dict[str, Any]) -> None:
    new(**change).check()


def test_continuation_is_stored(database: Database, new: New) -> None:
    with database.write() as session:
        made = creation.create(session, new(continuation=continuation(REQUEST_ID)))
    with database.read() as session:
        kept = session.get_one(Generation, made.id)
        assert kept.continuation == {"source_id": REQUEST_ID, "seconds": 10.0}
        assert kept.to_dict()["continuation"] == kept.continuation


def test_fingerprints_are_those_of_earlier_versions(new: New) -> None:
    """A request from before an upgrade may be repeated after it."""
    assert new().fingerprint() == "e8816bbc26644d0b"
    assert (
        new(continuation=continuation("99999999-2222-4333-8444-55555555aaaa", 5.0)).fingerprint() == "78e641b8d0eea141"
    )
