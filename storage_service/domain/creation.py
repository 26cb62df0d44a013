"""The creation of a generation: its row and the use of its prompt, in one transaction, once per request id."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from dgx_music.errors import InvalidArgument, ResourceExhausted
from dgx_music.limits import (
    MAX_BATCH_SIZE,
    MAX_CHANNELS,
    MAX_DURATION_SECONDS,
    MAX_PRIORITY,
    MAX_SAMPLE_RATE_HZ,
    MIN_DURATION_SECONDS,
    MIN_PRIORITY,
    MIN_SAMPLE_RATE_HZ,
)
from service_runtime.audio.output_options import OutputOptions
from service_runtime.shaping import Fields, check_conditioning, check_edit, check_length, check_loop, loop_seconds
from service_runtime.validation import (
    check_continuation,
    check_prompt,
    check_range,
    check_sampling,
    check_seed,
    check_uuid,
)
from storage_service.db.models import Generation
from storage_service.db.upsert import dialect_name
from storage_service.domain import prompts, queue, row_insertion
from storage_service.domain.queue import Place, QueueState
from storage_service.domain.queue_limits import QueueLimits, count_usage, require_room
from storage_service.domain.request_validation import check_metadata, check_name
from storage_service.domain.row_insertion import Origin

MAX_ATTEMPTS_RANGE = (1, 20)
"""The lowest and the highest number of attempts that a request may ask for."""


_OMITTED_IF_EMPTY = (
    *("sampling", "continuation", "output", "priority", "max_attempts"),
    *("conditioning", "edit", "loop", "variation_of"),
)
"""Fields that are newer than the fingerprint of a request."""


@dataclass(frozen=True)
class NewGeneration:
    """A request for a generation. Errors use the field names of CreateGenerationRequest."""

    prompt: str
    model_name: str
    duration_seconds: float
    sample_rate: int
    channels: int
    seed: int | None = None
    output: OutputOptions = field(default_factory=OutputOptions)
    sampling: Mapping[str, float] = field(default_factory=dict)
    continuation: Fields | None = None
    """`source_id` and `seconds`. This and the next ones are as in `service_runtime.shaping`."""
    conditioning: Fields = field(default_factory=dict)
    edit: Fields | None = None
    loop: Fields | None = None
    variation_of: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    priority: int = 0
    max_attempts: int | None = None
    """None for the server's default."""
    request_id: str | None = None

    def check(self) -> None:
        """Raises InvalidArgument for the first invalid field."""
        if self.request_id is not None:
            check_uuid("request_id", self.request_id)
        check_prompt("prompt", self.prompt)
        check_name("model_name", self.model_name)
        check_range("duration_seconds", self.duration_seconds, MIN_DURATION_SECONDS, MAX_DURATION_SECONDS, "s")
        check_range("sample_rate_hz", self.sample_rate, MIN_SAMPLE_RATE_HZ, MAX_SAMPLE_RATE_HZ, "Hz")
        check_range("channels", self.channels, 1, MAX_CHANNELS)
        if self.seed is not None:
            check_seed("seed", self.seed)
        self.output.check("output")
        self.output.check_for_source("output", self.sample_rate, self.channels, self.duration_seconds)
        check_sampling("sampling", self.sampling)
        if self.continuation is not None:
            source_id, seconds = self.continuation.get("source_id", ""), self.continuation.get("seconds", 0.0)
            check_continuation("continuation", source_id, seconds)
        self._check_shaping()
        check_metadata("metadata", self.metadata)
        check_range("priority", self.priority, MIN_PRIORITY, MAX_PRIORITY)
        if self.max_attempts is not None:
            check_range("max_attempts", self.max_attempts, *MAX_ATTEMPTS_RANGE)

    def _check_shaping(self) -> None:
        check_conditioning("conditioning", self.conditioning, self.duration_seconds)
        if self.edit is not None:
            check_edit("edit", self.edit)
            if self.continuation is not None or self.loop is not None:
                other = "loop" if self.continuation is None else "continuation"
                raise InvalidArgument("edit", f"can't be combined with {other}")
        if self.loop is not None:
            check_loop("loop", self.loop)
            if self.continuation is not None:
                raise InvalidArgument("loop", "can't be combined with continuation")
            check_length("duration_seconds", self.duration_seconds, loop_seconds(self.loop))
        if self.variation_of is not None:
            check_uuid("variation_of", self.variation_of)

    def fingerprint(self) -> str:
        """Returns a hash that equal requests share: 64 bits of SHA-256, in hex, over all fields but the request id."""
        body = {name: value for name, value in vars(self).items() if name != "request_id"}
        body["output"] = self.output.to_dict()
        for name in _OMITTED_IF_EMPTY:
            if not body[name]:
                # Omitted as before the field existed: a request from before an upgrade may be repeated after it.
                del body[name]
        return hashlib.sha256(json.dumps(body, sort_keys=True, default=dict).encode()).hexdigest()[:16]


NO_ORIGIN = Origin()


def create(
    session: Session,
    new: NewGeneration,
    *,
    max_attempts: int = 3,
    origin: Origin = NO_ORIGIN,
    limits: QueueLimits | None = None,
    file_path: str | None = None,
    model_version: str | None = None,
) -> Generation:
    """Creates a PENDING generation and counts its prompt, or returns the one that the same request created before.

    Raises InvalidArgument for an invalid field, and for `request_id` if it was used for a different request;
    ResourceExhausted if the client or the queue has no room within `limits`.
    """
    new.check()
    entry = _QueueEntry(session, origin, limits, max_attempts)
    entry.open([new])
    row = entry.insert(new, file_path=file_path, model_version=model_version)
    entry.close()
    return row


def create_all(
    session: Session,
    requests: Sequence[NewGeneration],
    *,
    max_attempts: int = 3,
    origin: Origin = NO_ORIGIN,
    limits: QueueLimits | None = None,
) -> list[Generation]:
    """Does what `create` does for each request, in order, all or none. Errors name the field, "requests[2].prompt"."""
    if not 1 <= len(requests) <= MAX_BATCH_SIZE:
        raise InvalidArgument("requests", f"must contain 1 to {MAX_BATCH_SIZE} requests, not {len(requests)}")
    for index, new in enumerate(requests):
        with _naming_request(index):
            new.check()
    entry = _QueueEntry(session, origin, limits, max_attempts)
    entry.open(requests)
    rows = []
    for index, new in enumerate(requests):
        with _naming_request(index):
            rows.append(entry.insert(new))
    entry.close()
    return rows


@contextmanager
def _naming_request(index: int) -> Iterator[None]:
    try:
        yield
    except InvalidArgument as error:
        raise InvalidArgument(f"requests[{index}].{error.field}", error.problem, reason=error.reason) from error


class _QueueEntry:
    """The entry of one client's requests into the queue, in one transaction: `open`, `insert` for each, `close`."""

    def __init__(self, session: Session, origin: Origin, limits: QueueLimits | None, max_attempts: int) -> None:
        self._session, self._origin, self._limits, self._max_attempts = session, origin, limits, max_attempts
        self._created: list[NewGeneration] = []
        self._states: dict[tuple[str, int], QueueState] = {}

    def open(self, requests: Sequence[NewGeneration]) -> None:
        """Raises ResourceExhausted if there is no room for them. What was created before needs none."""
        queue.lock_client(self._session, self._origin.client)
        self._first = self._state(requests[0])
        self._is_batch = len(requests) > 1
        self._counts_prompt = not self._is_batch and dialect_name(self._session) == "postgresql"
        if self._limits is None:
            return
        try:
            require_room(
                self._session,
                self._limits,
                self._first,
                self._origin.client,
                [new.duration_seconds for new in requests],
            )
        except ResourceExhausted:
            rest = [new.duration_seconds for new in requests if not self._was_created(new)]
            require_room(self._session, self._limits, self._first, self._origin.client, rest)

    def insert(
        self, new: NewGeneration, *, file_path: str | None = None, model_version: str | None = None
    ) -> Generation:
        """Returns the new row, or that of the same request."""
        state = self._state(new)
        rank = queue.compute_rank(state, new.priority)
        row, is_new = row_insertion.insert(
            self._session,
            new,
            self._origin,
            rank,
            self._max_attempts,
            file_path=file_path,
            model_version=model_version,
            counts_prompt=self._counts_prompt,
            weight=state.weight,
        )
        if is_new:
            self._created.append(new)
            if self._is_batch:
                self._add_place(new, Place(rank, new.priority, new.duration_seconds, state.weight))
        return row

    def _add_place(self, new: NewGeneration, place: Place) -> None:
        self._states = {
            (model_name, priority): queue.add_place(
                state, place, of_model=model_name == new.model_name, priority=priority
            )
            for (model_name, priority), state in self._states.items()
        }

    def close(self) -> None:
        """Counts the use of the prompts, and what the client has used."""
        if not self._counts_prompt:
            prompts.count_uses(self._session, [new.prompt for new in self._created])
        audio_seconds = sum(new.duration_seconds for new in self._created)
        count_usage(self._session, self._first, self._origin.client, audio_seconds)

    def _state(self, new: NewGeneration) -> QueueState:
        key = new.model_name, new.priority
        if key not in self._states:
            self._states[key] = queue.read_state(self._session, self._origin.client, *key)
        return self._states[key]

    def _require_room(self, limits: QueueLimits, requests: Sequence[NewGeneration]) -> None:
        durations = [new.duration_seconds for new in requests]
        require_room(self._session, limits, self._first, self._origin.client, durations)

    def _was_created(self, new: NewGeneration) -> bool:
        return new.request_id is not None and row_insertion.find_by_request_id(self._session, new) is not None
