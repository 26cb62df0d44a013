"""Performs the model's calls on storage itself, and compares the stored rows with the model."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from itertools import chain
from typing import Any

from sqlalchemy.orm import Session

from dgx_music.errors import ServiceError
from storage_service import api
from storage_service.db.database import Database
from storage_service.domain import creation, leases, lifecycle
from storage_service.domain.creation import NewGeneration
from storage_service.domain.leases import Completion
from storage_service.domain.sharing.hand_back import hand_back as return_job
from storage_service.states import GenerationStage
from tests.support.clocked_database import ClockedDatabase
from tests.support.lifecycle_model import Answer, Call, Job, Model, ModelMismatch, Request


class Killed(Exception):
    """Simulates a process that ends before its transaction does."""


def make(database: Database, call: Call, *, killed: bool = False) -> Answer:
    """Returns storage's answer, or the name of its error. If `killed`, the answer is not committed."""
    answer: Answer = None
    try:
        with database.write() as session:
            answer = _CALLS[call.name](session, *call.arguments)
            if killed:
                raise Killed
    except ServiceError as error:
        return type(error).__name__
    except Killed:
        pass
    return answer


def _create(session: Session, requests: Sequence[Request]) -> Answer:
    news = [NewGeneration(sample_rate=32000, channels=2, **vars(request)) for request in requests]
    if len(news) == 1:
        return (creation.create(session, news[0]).id,)
    return tuple(row.id for row in creation.create_all(session, news))


def _claim(session: Session, worker: str, models: Sequence[str], seconds: float) -> Answer:
    row = leases.claim(session, worker, models, seconds)
    return row and (row.id, row.lease_token, row.attempt)


def _renew(session: Session, key: str, token: str, seconds: float, stage: str | None, progress: float) -> Answer:
    renewed = leases.renew(session, key, token, seconds, GenerationStage(stage) if stage else None, progress)
    return "cancelled" if renewed is None else renewed.lease_expires_at


def _complete(session: Session, key: str, token: str, path: str, size: int, seconds: float) -> Answer:
    return leases.complete(session, key, token, Completion(path, size, seconds, "1", {"bpm": size})).status.value


def _fail(session: Session, key: str, token: str, retryable: bool) -> Answer:
    return leases.fail(session, key, token, "it broke", retryable=retryable).status.value


def _hand_back(session: Session, key: str, token: str) -> Answer:
    return return_job(session, key, token, "shutting down").status.value


def _cancel(session: Session, key: str) -> Answer:
    return lifecycle.cancel(session, key).status.value


def _retry(session: Session, key: str) -> Answer:
    return lifecycle.retry(session, key).status.value


def _delete(session: Session, key: str) -> Answer:
    lifecycle.remove(session, key)
    return "gone"


def _update_metadata(session: Session, key: str, patch: Mapping[str, Any]) -> Answer:
    return lifecycle.update_metadata(session, key, patch).get_metadata()


def _rate(session: Session, key: str, rating: int) -> Answer:
    return lifecycle.rate(session, key, rating).rating


def _update_file(session: Session, key: str, size: int, digest: str) -> Answer:
    return lifecycle.update_file(session, key, size, digest).file_size_bytes


def _create_by_library(session: Session, prompt: str, model_name: str, path: str) -> Answer:
    return api.create_generation(session, prompt, model_name, 1.5, 32000, 2, path).id


def _mark(session: Session, key: str, state: str) -> Answer:
    return api.update_generation_status(session, key, state, "it broke").status.value


def _sweep(session: Session) -> Answer:
    return {row.id for row in leases.expire_leases(session)}


_CALLS: dict[str, Callable[..., Answer]] = {
    "create": _create,
    "claim": _claim,
    "renew": _renew,
    "complete": _complete,
    "fail": _fail,
    "hand_back": _hand_back,
    "cancel": _cancel,
    "retry": _retry,
    "delete": _delete,
    "update_metadata": _update_metadata,
    "rate": _rate,
    "update_file": _update_file,
    "create_by_library": _create_by_library,
    "mark": _mark,
    "sweep": _sweep,
}

_TIMES = "created_at", "ranked_at", "started_at", "completed_at", "not_before", "lease_expires_at"
_OTHERS = (
    "id, prompt, model_name, duration_seconds, priority, request_id, status, attempt, max_attempts, lease_token, "
    "worker_id, stage, progress, error_message, metadata, file_path, file_size_bytes, generation_time_seconds, "
    "rating"
)
_RANK, _LEASE_ENDS, _STATE = 1, 5, 6
_GENERATIONS = f"SELECT {', '.join(_TIMES)}, {_OTHERS} FROM generations"
_COUNTS = (
    "SELECT status, model_name, finished_on, sum(generations), sum(audio_ms), sum(file_bytes), sum(work_ms) "
    "FROM generation_counts GROUP BY status, model_name, finished_on"
)
_GENERATION_TIMES = "SELECT model_name, seconds, sum(generations) FROM generation_times GROUP BY model_name, seconds"
_PROMPTS = "SELECT text, used_count FROM prompts"
_PROMPT_COUNTS = "SELECT sum(prompts) FROM prompt_counts"


def compare(stored: ClockedDatabase, model: Model) -> None:
    """Raises ModelMismatch unless every column of every row, every count and every prompt use equals the model's."""
    found, expected = {row[len(_TIMES)]: _plain(row) for row in stored.rows(_GENERATIONS)}, _columns(model)
    if not model.checks_ranks:
        for row in chain(found.values(), expected.values()):
            row[_RANK] = row[_RANK] is not None
    _agree("generations", found, expected)
    counted = {(*row[:2], str(row[2])): [int(cell) for cell in row[3:]] for row in stored.rows(_COUNTS)}
    _agree("counts", {cell: sums for cell, sums in counted.items() if any(sums)}, _sums(model))
    times = {(row[0], row[1]): int(row[2]) for row in stored.rows(_GENERATION_TIMES) if row[2]}
    _agree("generation times", times, _histogram(model))
    _agree("prompts", dict(stored.rows(_PROMPTS)), dict(model.uses))
    _agree("prompt counts", int(stored.rows(_PROMPT_COUNTS)[0][0] or 0), len(model.uses))


def _agree(what: str, found: Any, expected: Any) -> None:
    if found != expected:
        raise ModelMismatch(f"{what}: storage has {found}, but should have {expected}")


def _plain(row: Sequence[Any]) -> list[Any]:
    """Decodes SQLite's text, and clears the lease's end of rows for which it has no meaning."""
    times = [datetime.fromisoformat(f"{cell}+00:00") if isinstance(cell, str) else cell for cell in row[: len(_TIMES)]]
    others = [
        json.loads(cell) if isinstance(cell, str | bytes) and cell[:1] in ("{", b"{") else cell
        for cell in row[len(_TIMES) :]
    ]
    state = others[_STATE]
    if state != "processing":
        times[_LEASE_ENDS] = None
    return times + others


def _columns(model: Model) -> dict[str, list[Any]]:
    return {key: _row(job) for key, job in model.jobs.items()}


def _row(job: Job) -> list[Any]:
    asked = job.request
    lease_ends = job.lease_ends if job.state == "processing" else None
    times = [job.created_at, job.rank, job.started_at, job.finished_at, job.not_before, lease_ends]
    request = [job.id, asked.prompt, asked.model_name, asked.duration_seconds, asked.priority, asked.request_id]
    lease = [job.state, job.attempt, job.max_attempts, job.token, job.worker, job.stage, job.progress]
    return [*times, *request, *lease, job.error, job.metadata, job.path, job.size, job.seconds, job.rating]


def _sums(model: Model) -> dict[tuple[str, str, str], list[int]]:
    sums: dict[tuple[str, str, str], list[int]] = defaultdict(lambda: [0] * 4)
    for job in model.jobs.values():
        day = job.finished_at.astimezone(UTC).date() if job.finished_at else date(1970, 1, 1)
        cell = sums[job.state, job.request.model_name, str(day)]
        of_job = 1, round(job.request.duration_seconds * 1000), job.size or 0, round((job.seconds or 0) * 1000)
        cell[:] = [total + more for total, more in zip(cell, of_job, strict=True)]
    return dict(sums)


def _histogram(model: Model) -> dict[tuple[str, float], int]:
    times: dict[tuple[str, float], int] = defaultdict(int)
    for job in model.jobs.values():
        if job.state == "completed":
            times[job.request.model_name, float(f"{job.seconds:.1e}")] += 1
    return dict(times)
