"""A model of storage's behaviour: a second implementation of the design's state machine in plain Python, without
storage's own code or its table of transitions. The model is given each call with storage's answer. It takes from the
answer what storage may choose freely (ids, tokens); everything else has to agree."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

DEFAULT_ATTEMPTS = 3
MORE_ATTEMPTS = 3
WAIT_PER_PRIORITY_LEVEL = timedelta(minutes=10)
MAX_BACKOFF_SECONDS = 64
LEASE_EXPIRED = "the worker stopped responding and its lease expired"

STATES = "pending", "processing", "completed", "failed", "cancelled"

ABORTED, ILLEGAL, UNKNOWN, INVALID = "Aborted", "FailedPrecondition", "NotFound", "InvalidArgument"
SOURCE_STATES = {
    "pending": ("processing", "failed"),
    "processing": ("pending",),
    "completed": ("processing",),
    "failed": ("processing",),
    "cancelled": ("pending", "processing"),
}

REJECTIONS = ABORTED, ILLEGAL, UNKNOWN, INVALID

Answer = Any
"""The name of an error, or the result of the call (see each method of `Model`)."""


class ModelMismatch(AssertionError):
    """Storage deviated from the state machine."""


class Rejected(Exception):
    """The call must fail and change nothing."""


@dataclass(frozen=True)
class Request:
    """A request to create a generation."""

    prompt: str = "a calm piano"
    model_name: str = "small"
    duration_seconds: float = 1.5
    priority: int = 0
    max_attempts: int | None = None
    request_id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=lambda: {"mood": "as asked"})


@dataclass(frozen=True)
class Call:
    """One call of storage: the name of a method of `Model`, and its arguments."""

    name: str
    arguments: tuple[Any, ...] = ()


@dataclass
class Job:
    """The expected state of a generation."""

    id: str
    request: Request
    created_at: datetime
    state: str = "pending"
    attempt: int = 0
    max_attempts: int = DEFAULT_ATTEMPTS
    not_before: datetime | None = None
    token: str | None = None
    lease_ends: datetime | None = None
    worker: str | None = None
    stage: str | None = None
    progress: float = 0.0
    error: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    started_at: datetime | None = None
    finished_at: datetime | None = None
    path: str | None = None
    size: int | None = None
    seconds: float | None = None
    rating: int | None = None
    rank: datetime | None = None
    """The smallest is claimed first; None unless pending or processing."""

    @property
    def start(self) -> datetime:
        """The rank without the priority: one level moves a job ahead by ten minutes of audio."""
        assert self.rank is not None
        return self.rank + self.request.priority * WAIT_PER_PRIORITY_LEVEL

    @property
    def length(self) -> timedelta:
        return timedelta(seconds=self.request.duration_seconds)

    def wait(self) -> None:
        """Returns the job to the queue, without a lease."""
        self.state, self.token, self.lease_ends, self.stage, self.progress = "pending", None, None, None, 0.0

    def finish(self, state: str, now: datetime) -> None:
        self.state, self.finished_at, self.stage, self.rank = state, now, None, None


class Model:
    """All generations and prompts. Each method takes storage's answer first and returns the expected one."""

    def __init__(self, now: datetime, *, checks_ranks: bool = True) -> None:
        self.now, self.checks_ranks = now, checks_ranks
        self.jobs: dict[str, Job] = {}
        self.uses: Counter[str] = Counter()
        self.tokens: set[str] = set()
        self.locked: frozenset[str] = frozenset()
        """Ids that another transaction has locked, which a claim and a sweep skip."""

    def copy(self) -> Model:
        """Returns an independent copy."""
        other = copy.copy(self)
        other.jobs = {key: copy.copy(job) for key, job in self.jobs.items()}
        other.uses, other.tokens = Counter(self.uses), set(self.tokens)
        return other

    def apply(self, call: Call, answer: Answer) -> None:
        """Makes the call here too. ModelMismatch where the answer is not this model's."""
        try:
            expected = getattr(self, call.name)(answer, *call.arguments)
        except Rejected as refusal:
            expected = str(refusal)
        if answer != expected:
            raise ModelMismatch(f"{call} was answered {answer!r}; it should have been {expected!r}")

    def create(self, answer: Answer, requests: Sequence[Request]) -> Answer:
        """The ids, in the order of the requests: all or none."""
        known: dict[str | None, str] = {job.request.request_id: job.id for job in self.jobs.values()}
        known.pop(None, None)
        asked = {job.request.request_id: job.request for job in self.jobs.values()}
        for request in requests:
            if not request.prompt:
                raise Rejected(INVALID)
            if request.request_id and asked.setdefault(request.request_id, request) != request:
                raise Rejected(INVALID)
        if answer in REJECTIONS or len(answer) != len(requests):
            return "the ids of all"
        for request, generation_id in zip(requests, answer, strict=True):
            if request.request_id in known:
                if known[request.request_id] != generation_id:
                    return f"{known[request.request_id]} for {request}, which asks again"
                continue
            if generation_id in self.jobs:
                return f"a new id for {request}"
            attempts = request.max_attempts or DEFAULT_ATTEMPTS
            rank = self.next_rank(request)
            self.jobs[generation_id] = Job(
                generation_id, request, self.now, max_attempts=attempts, metadata=request.metadata, rank=rank
            )
            self.uses[request.prompt] += 1
            if request.request_id:
                known[request.request_id] = generation_id
        return answer

    def create_by_library(self, answer: Answer, prompt: str, model_name: str, path: str) -> Answer:
        """The id."""
        if answer in REJECTIONS or answer in self.jobs:
            return "a new id"
        request = Request(prompt, model_name, metadata={})
        self.jobs[answer] = Job(answer, request, self.now, path=path, rank=self.next_rank(request))
        self.uses[prompt] += 1
        return answer

    def claim(self, answer: Answer, worker: str, models: Sequence[str], seconds: float) -> Answer:
        """The id, the token and the number of the attempt; None where nothing waits."""
        self.sweep()
        waiting = [job for job in self.jobs.values() if self.is_due(job) and job.request.model_name in models]
        if not waiting:
            return None
        if not isinstance(answer, tuple):
            return f"one of {[job.id for job in waiting]}"
        generation_id, token, _ = answer
        # Two of one rank are of one age: either may go first.
        if not self.checks_ranks:
            waiting = [job for job in waiting if job.id == generation_id] or waiting[:0]
        first = min(((job.rank, job.created_at) for job in waiting), default=None)
        if generation_id not in {job.id for job in waiting if (job.rank, job.created_at) == first}:
            return f"one of {[job.id for job in waiting if (job.rank, job.created_at) == first]}"
        if not token or token in self.tokens:
            return "a token that was never issued"
        job = self.jobs[generation_id]
        job.state, job.token, job.worker, job.stage, job.progress = "processing", token, worker, "queued", 0.0
        job.lease_ends = self.now + timedelta(seconds=seconds)
        job.attempt += 1
        job.started_at, job.not_before = self.now, None
        self.tokens.add(token)
        return generation_id, token, job.attempt

    def next_rank(self, request: Request) -> datetime:
        """The rank of a job that enters the queue now: where service has arrived, but behind its client's others."""
        queued = [job for job in self.jobs.values() if job.rank is not None]
        queued.sort(key=lambda job: (job.rank, job.created_at))
        running = [job for job in queued if job.state == "processing"][-1:]
        heads = [job for job in queued if job.state == "pending" and job.request.model_name == request.model_name][:1]
        ahead = [job for job in queued if job.request.priority >= request.priority][-1:]
        share = 0.0 if ahead else 0.5  # Who has nothing in the queue comes after half of what is running.
        rank = max(
            [job.start + job.length * share for job in running or heads] + [job.start - job.length for job in heads],
            default=self.now,
        )
        rank -= request.priority * WAIT_PER_PRIORITY_LEVEL
        return max([rank] + [job.rank + job.length for job in ahead if job.rank is not None])

    def is_due(self, job: Job) -> bool:
        """Whether a claim may return it."""
        if job.state != "pending" or job.id in self.locked:
            return False
        return job.not_before is None or job.not_before <= self.now

    def renew(self, _: Answer, key: str, token: str, seconds: float, stage: str | None, progress: float) -> Answer:
        """When the lease ends; "cancelled" for its holder to stop."""
        job = self._job(key)
        if job.state == "cancelled" and job.token == token:
            return "cancelled"
        self._require_lease(job, token)
        job.lease_ends = self.now + timedelta(seconds=seconds)
        job.stage, job.progress = stage or job.stage, progress
        return job.lease_ends

    def complete(self, _: Answer, key: str, token: str, path: str, size: int, seconds: float) -> Answer:
        """The state; also to who says so again."""
        job = self._job(key)
        if job.state == "completed" and job.token == token:
            return job.state
        self._require_lease(job, token)
        job.finish("completed", self.now)
        job.path, job.size, job.seconds, job.progress, job.error = path, size, seconds, 1.0, None
        job.metadata = {**job.metadata, "bpm": size}
        return job.state

    def fail(self, _: Answer, key: str, token: str, retryable: bool) -> Answer:
        """The state."""
        job = self._job(key)
        self._require_lease(job, token)
        job.error = "it broke"
        if retryable and job.attempt < job.max_attempts:
            job.wait()
            seconds = min(2 ** (job.attempt - 1), MAX_BACKOFF_SECONDS)
            job.not_before = self.now + timedelta(seconds=seconds)
        else:
            job.finish("failed", self.now)
        return job.state

    def hand_back(self, _: Answer, key: str, token: str) -> Answer:
        """The state; the attempt doesn't count."""
        job = self._job(key)
        self._require_lease(job, token)
        job.wait()
        job.max_attempts, job.error = job.max_attempts + 1, "shutting down"
        return job.state

    def cancel(self, _: Answer, key: str) -> Answer:
        """The state. The token stays, so that its holder hears of it."""
        job = self._job(key, "pending", "processing")
        job.finish("cancelled", self.now)
        job.not_before = None
        return job.state

    def retry(self, _: Answer, key: str) -> Answer:
        """The state."""
        job = self._job(key, "failed")
        job.rank = self.next_rank(job.request)
        job.wait()
        job.max_attempts = job.attempt + MORE_ATTEMPTS
        job.error = job.worker = job.started_at = job.finished_at = None
        return job.state

    def delete(self, _: Answer, key: str) -> Answer:
        """ "gone". Its prompt stays counted."""
        self._job(key, "pending", "completed", "failed", "cancelled")
        del self.jobs[key]
        return "gone"

    def update_metadata(self, _: Answer, key: str, patch: Mapping[str, Any]) -> Answer:
        """The metadata; one level deep, which is all that is asked of it here."""
        job = self._job(key)
        job.metadata = {name: value for name, value in {**job.metadata, **patch}.items() if value is not None}
        return job.metadata

    def rate(self, _: Answer, key: str, rating: int) -> Answer:
        """The rating, None for 0."""
        job = self._job(key)
        job.rating = rating or None
        return job.rating

    def update_file(self, _: Answer, key: str, size: int, digest: str) -> Answer:
        """The size."""
        job = self._job(key, "completed")
        job.size, job.metadata = size, {**job.metadata, "file_sha256": digest}
        return job.size

    def mark(self, _: Answer, key: str, state: str) -> Answer:
        """The state: as a script sets it through the library, which needs no lease and gives none."""
        job = self._job(key, *SOURCE_STATES[state])
        if state == "processing":
            job.state, job.stage, job.started_at, job.not_before = state, "queued", self.now, None
            job.attempt += 1
        elif state == "pending":
            if job.state == "failed":
                job.attempt, job.started_at, job.error, job.rank = 0, None, None, self.now
            job.wait()
            job.finished_at = None
        else:
            job.finish(state, self.now)
            job.not_before = None
        if state == "completed":
            assert job.started_at is not None
            job.seconds, job.progress, job.error = (self.now - job.started_at).total_seconds(), 1.0, None
        if state == "failed":
            job.error = "it broke"
        return state

    def sweep(self, _: Answer = None) -> Answer:
        """Returns the ids of the generations whose lease ended, which no worker holds now."""
        ended = [job for job in self.jobs.values() if self.has_ended(job) and job.id not in self.locked]
        for job in ended:
            job.wait()
            job.error = LEASE_EXPIRED
            if job.attempt >= job.max_attempts:
                job.finish("failed", self.now)
        return {job.id for job in ended}

    def has_ended(self, job: Job) -> bool:
        """Whether its lease has."""
        return job.state == "processing" and job.lease_ends is not None and job.lease_ends <= self.now

    def _job(self, key: str, *states: str) -> Job:
        job = self.jobs.get(key)
        if job is None:
            raise Rejected(UNKNOWN)
        if states and job.state not in states:
            raise Rejected(ILLEGAL)
        return job

    def _require_lease(self, job: Job, token: str) -> None:
        if job.token != token or self.has_ended(job):
            raise Rejected(ABORTED)
        if job.state != "processing":
            raise Rejected(ILLEGAL)
