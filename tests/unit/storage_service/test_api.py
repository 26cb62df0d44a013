"""The Python API of storage_service."""

from __future__ import annotations

import doctest
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

import storage_service
from dgx_music.errors import FailedPrecondition, InvalidArgument, NotFound
from storage_service import (
    Generation,
    GenerationStatus,
    Prompt,
    api,
    complete_generation,
    count_generations,
    create_generation,
    delete_generation,
    get_all_generations,
    get_all_prompts,
    get_database_stats,
    get_generation,
    get_generations_by_status,
    get_most_used_prompts,
    get_pending_generations,
    get_prompt,
    get_prompt_by_text,
    get_session,
    init_db,
    reset_database,
    track_prompt_usage,
    update_generation_status,
)
from storage_service.db.database import Database
from storage_service.domain import lifecycle

UNKNOWN = "00000000-0000-4000-8000-000000000000"
PENDING, PROCESSING, COMPLETED, FAILED, CANCELLED = GenerationStatus


pytestmark = pytest.mark.usefixtures("library_closed")


@pytest.fixture
def opened(url: str, library_closed: None) -> None:
    init_db(url)


def create(**changes: Any) -> str:
    request = {
        "prompt": "hip hop beat at 140 BPM",
        "model_name": "musicgen-small",
        "duration_seconds": 16.0,
        "sample_rate": 32000,
        "channels": 2,
        "file_path": "outputs/gen_123.wav",
    }
    with get_session() as session:
        return create_generation(session, **{**request, **changes}).id


@pytest.mark.usefixtures("opened")
def test_documented_workflow_completes_generation() -> None:
    with get_session() as session:
        gen = create_generation(
            session=session,
            prompt="hip hop beat at 140 BPM",
            model_name="musicgen-small",
            duration_seconds=16.0,
            sample_rate=32000,
            channels=2,
            file_path="outputs/gen_123.wav",
            metadata={"bpm": 140},
        )
    gen_id = gen.id
    with get_session() as session:
        get_generation(session, gen_id).mark_processing()  # type: ignore[union-attr]
    with get_session() as session:
        complete_generation(
            session, gen_id, generation_time=18.5, file_size_bytes=5242880, metadata={"bpm": 140, "key": "Cm"}
        )
    with get_session() as session:
        done = get_generation(session, gen_id)
    assert done is not None
    assert done.is_complete
    assert done.is_finished
    assert done.status == "completed"
    assert done.get_metadata() == {"bpm": 140, "key": "Cm"}
    assert (done.generation_time_seconds, done.file_size_bytes) == (18.5, 5242880)
    assert done.file_path == "outputs/gen_123.wav"
    assert done.started_at is not None
    assert done.completed_at is not None
    assert done.started_at <= done.completed_at
    as_json = json.loads(json.dumps(done.to_dict()))
    assert as_json["status"] == "completed"
    assert as_json["metadata"] == {"bpm": 140, "key": "Cm"}
    assert datetime.fromisoformat(as_json["completed_at"]) == done.completed_at
    assert "lease_token" not in as_json


MARKS = {
    PENDING: Generation.mark_pending,
    PROCESSING: Generation.mark_processing,
    COMPLETED: lambda row: row.mark_completed(1.0),
    FAILED: lambda row: row.mark_failed("no luck"),
    CANCELLED: Generation.mark_cancelled,
}
LEGAL = {
    (PENDING, PROCESSING),
    (PENDING, CANCELLED),
    (PROCESSING, PENDING),
    (PROCESSING, COMPLETED),
    (PROCESSING, FAILED),
    (PROCESSING, CANCELLED),
    (FAILED, PENDING),
}
PATHS = {
    PENDING: [],
    PROCESSING: [PROCESSING],
    COMPLETED: [PROCESSING, COMPLETED],
    FAILED: [PROCESSING, FAILED],
    CANCELLED: [CANCELLED],
}


@pytest.mark.usefixtures("opened")
@pytest.mark.parametrize("source", GenerationStatus)
def test_mark_in_every_state_follows_transition_table(source: GenerationStatus) -> None:
    for target in GenerationStatus:
        gen_id = create()
        for step in PATHS[source]:
            with get_session() as session:
                update_generation_status(session, gen_id, step.value)
        with get_session() as session:
            before = get_generation(session, gen_id)
            assert before is not None
            if (source, target) in LEGAL:
                MARKS[target](before)
            else:
                snapshot = before.to_dict()
                with pytest.raises(FailedPrecondition) as raised:
                    MARKS[target](before)
                assert raised.value.reason == "ILLEGAL_TRANSITION"
                assert raised.value.metadata["current_state"] == source.name
        with get_session() as session:
            after = get_generation(session, gen_id)
            assert after is not None
            if (source, target) in LEGAL:
                assert after.status is target
                assert (after.completed_at is not None) == (target in {COMPLETED, FAILED, CANCELLED})
            else:
                assert after.to_dict() == snapshot


@pytest.mark.usefixtures("opened")
def test_mark_after_concurrent_transition_is_rejected() -> None:
    gen_id = create()
    with get_session() as session:
        mine = get_generation(session, gen_id)
    with get_session() as session:
        lifecycle.cancel(session, gen_id)
    assert mine is not None
    assert mine.is_pending
    with pytest.raises(FailedPrecondition), get_session() as session:  # noqa: PT012
        session.add(mine)
        mine.mark_processing()
    assert mine.status is CANCELLED


def test_detached_generation_follows_state_machine() -> None:
    row = Generation(prompt="p", metadata={"a": 1})
    assert len(row.id) == 36
    assert row.status == "pending"
    assert row.is_pending
    assert not row.is_finished
    with pytest.raises(FailedPrecondition):
        row.mark_completed(1.0)
    row.mark_processing()
    assert row.is_processing
    assert row.started_at is not None
    row.mark_failed("no luck")
    assert row.is_failed
    assert (row.error_message, row.is_finished) == ("no luck", True)
    assert row.completed_at is not None
    assert row.completed_at.tzinfo is UTC
    row.set_metadata({"b": 2})
    assert row.get_metadata() == {"b": 2}


@pytest.mark.usefixtures("opened")
def test_manually_added_row_gets_defaults() -> None:
    with get_session() as session:
        row = Generation(prompt="p", model_name="m", duration_seconds=1.0, sample_rate=32000, channels=1)
        session.add(row)
        row.mark_processing()
        assert row.attempt == 1
        assert row.created_at is not None
        assert 0 <= row.seed < 2**32


@pytest.mark.usefixtures("opened")
def test_update_generation_status_performs_each_transition() -> None:
    gen_id = create()
    with get_session() as session:
        assert update_generation_status(session, gen_id, GenerationStatus.PROCESSING).attempt == 1
        failed = update_generation_status(session, gen_id, "failed", error_message="out of memory")
        assert failed.error_message == "out of memory"
        again = update_generation_status(session, gen_id, "pending")
        assert (again.attempt, again.error_message, again.completed_at) == (0, None, None)
        update_generation_status(session, gen_id, "processing")
        done = update_generation_status(session, gen_id, "completed")
        assert done.generation_time_seconds is not None
        assert 0 <= done.generation_time_seconds < 60
        with pytest.raises(NotFound):
            update_generation_status(session, UNKNOWN, "processing")
        with pytest.raises(InvalidArgument, match="status"):
            update_generation_status(session, gen_id, "done")


@pytest.mark.usefixtures("opened")
def test_list_and_count_functions_filter_by_status() -> None:
    ids = [create() for _ in range(3)]
    with get_session() as session:
        update_generation_status(session, ids[1], "processing")
    with get_session() as session:
        assert [row.id for row in get_all_generations(session)] == ids[::-1]
        assert [row.id for row in get_all_generations(session, limit=1, offset=1)] == [ids[1]]
        assert [row.id for row in get_all_generations(session, status="processing")] == [ids[1]]
        assert [row.id for row in get_generations_by_status(session, GenerationStatus.PENDING)] == [ids[2], ids[0]]
        assert [row.id for row in get_pending_generations(session)] == [ids[0], ids[2]]
        assert (count_generations(session), count_generations(session, "pending")) == (3, 2)
        assert get_database_stats(session) == {
            "total_generations": 3,
            "pending_generations": 2,
            "processing_generations": 1,
            "completed_generations": 0,
            "failed_generations": 0,
            "cancelled_generations": 0,
            "total_prompts": 1,
        }


@pytest.mark.usefixtures("opened")
def test_delete_generation_by_state() -> None:
    gen_id = create()
    with get_session() as session:
        assert get_generation(session, UNKNOWN) is None
        assert get_generation(session, "no uuid") is None
        assert delete_generation(session, UNKNOWN) is False
        update_generation_status(session, gen_id, "processing")
        with pytest.raises(FailedPrecondition):
            delete_generation(session, gen_id)
        update_generation_status(session, gen_id, "cancelled")
        assert delete_generation(session, gen_id) is True
        assert get_generation(session, gen_id) is None


@pytest.mark.usefixtures("opened")
def test_prompt_functions_count_and_order() -> None:
    create(prompt="a")
    create(prompt="b")
    with get_session() as session:
        tracked = track_prompt_usage(session, "a")
        assert tracked.used_count == 2
        tracked.increment_usage()
        assert tracked.used_count == 3
        assert get_prompt(session, tracked.id) is tracked
        assert get_prompt(session, 999) is None
        assert get_prompt_by_text(session, "b") is not None
        assert get_prompt_by_text(session, "c") is None
        assert [row.text for row in get_all_prompts(session)] == ["a", "b"]
        assert [row.text for row in get_all_prompts(session, limit=1, offset=1)] == ["b"]
        assert [row.text for row in get_most_used_prompts(session, limit=1)] == ["a"]
        as_json = json.loads(json.dumps(tracked.to_dict()))
        assert (as_json["text"], as_json["used_count"]) == ("a", 3)
        with pytest.raises(InvalidArgument):
            track_prompt_usage(session, "")


def test_detached_prompt_increments_usage() -> None:
    prompt = Prompt(text="a", used_count=1)
    prompt.increment_usage()
    assert prompt.used_count == 2
    assert prompt.last_used_at is not None


@pytest.mark.usefixtures("opened")
def test_session_keeps_explicit_commit_and_rolls_back_on_exception() -> None:
    with pytest.raises(KeyError), get_session() as session:  # noqa: PT012
        first = create_generation(session, "a", "m", 1.0, 32000, 2, "a.wav", model_version="7")
        session.commit()
        second = create_generation(session, "b", "m", 1.0, 32000, 2, "b.wav")
        session.flush()
        raise KeyError
    with get_session() as session:
        kept = get_generation(session, first.id)
        assert kept is not None
        assert kept.model_version == "7"
        assert get_generation(session, second.id) is None


@pytest.mark.usefixtures("opened")
def test_reset_database_deletes_everything() -> None:
    create()
    reset_database()
    with get_session() as session:
        assert get_database_stats(session)["total_generations"] == 0
        assert get_all_prompts(session) == []


def test_init_db_opens_default_and_replaces_open_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FailedPrecondition, match="init_db"), get_session():
        pass
    monkeypatch.setenv("DGX_MUSIC_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("DGX_MUSIC_DATABASE_URL", raising=False)
    init_db()
    create()
    assert (tmp_path / "dgx_music.db").is_file()
    init_db(f"sqlite:///{tmp_path}/other.db")
    with get_session() as session:
        assert count_generations(session) == 0


def test_init_db_closes_rejected_database(empty_url: str, open_database: Callable[..., Database]) -> None:
    with open_database(empty_url).write() as session:
        session.execute(text("CREATE TABLE prompts (x INTEGER)"))
    with pytest.raises(FailedPrecondition, match="prompts") as raised:
        init_db(empty_url)
    [refused] = [entry.locals["database"] for entry in raised.traceback if entry.name == "init_db"]
    assert refused.engine.pool.checkedin() == 0


def test_package_docstring_examples_pass(url: str) -> None:
    documentation = (storage_service.__doc__ or "").replace("sqlite:///music.db", url)
    examples = doctest.DocTestParser().get_doctest(documentation, {}, "storage_service", None, None)
    output: list[str] = []
    flags = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
    results = doctest.DocTestRunner(optionflags=flags).run(examples, out=output.append)
    assert results.attempted > 10
    assert results.failed == 0, "".join(output)


def test_package_exports_exactly_the_api() -> None:
    for name in storage_service.__all__:
        assert getattr(storage_service, name) is getattr(api, name)
    with pytest.raises(AttributeError, match="nonsense"):
        storage_service.nonsense  # noqa: B018
