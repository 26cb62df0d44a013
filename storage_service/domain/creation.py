"""A generation's beginning: its row and the use of its prompt, in one transaction, once for each request id."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from sqlalchemy import Executable, Integer, Text, bindparam, func, inspect, select
from sqlalchemy.orm import Session, make_transient_to_detached

from dgx_music.errors import InvalidArgument
from service_runtime.audio.output_options import OutputOptions
from service_runtime.validation import check_prompt, check_range, check_sampling, check_seed, check_uuid
from storage_service.db.clock import now
from storage_service.db.models import Generation, draw_seed
from storage_service.db.upsert import dialect_of, insert_into
from storage_service.domain import prompts, queue
from storage_service.domain.continuation import Continuation
from storage_service.domain.request_validation import check_metadata, check_name
from storage_service.events.changes import CHANNEL, Change, build_announcement, record_change
from storage_service.states import GenerationStatus

MAX_ATTEMPTS = (1, 20)
"""The fewest and the most attempts that may be asked for."""
MAX_BATCH = 100
"""Most generations in one call."""


_NOTHING: dict[str, Any] = dict.fromkeys(attribute.key for attribute in inspect(Generation).column_attrs)
"""What a row has of which nothing is said."""


@dataclass(frozen=True)
class NewGeneration:
    """What somebody asks for. The field names in its errors are CreateGenerationRequest's."""

    prompt: str
    model_name: str
    duration_seconds: float
    sample_rate: int
    channels: int
    seed: int | None = None
    output: OutputOptions = field(default_factory=OutputOptions)
    sampling: Mapping[str, float] = field(default_factory=dict)
    continuation: Continuation | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    priority: int = 0
    max_attempts: int | None = None
    """None: the server's."""
    request_id: str | None = None

    def check(self) -> None:
        """Raises InvalidArgument for the first field that is out of its range."""
        if self.request_id is not None:
            check_uuid("request_id", self.request_id)
        check_prompt("prompt", self.prompt)
        check_name("model_name", self.model_name)
        check_range("duration_seconds", self.duration_seconds, 0.1, 3600, "s")
        check_range("sample_rate_hz", self.sample_rate, 8000, 192_000, "Hz")
        check_range("channels", self.channels, 1, 2)
        if self.seed is not None:
            check_seed("seed", self.seed)
        self.output.check("output")
        check_sampling("sampling", self.sampling)
        if self.continuation is not None:
            self.continuation.check("continuation")
        check_metadata("metadata", self.metadata)
        check_range("priority", self.priority, *queue.PRIORITIES)
        if self.max_attempts is not None:
            check_range("max_attempts", self.max_attempts, *MAX_ATTEMPTS)

    def fingerprint(self) -> str:
        """The same for requests that ask for the same: 64 bits of SHA-256, in hex, over all but the request id."""
        body = {name: value for name, value in vars(self).items() if name != "request_id"}
        body["continuation"] = self.continuation and self.continuation.to_dict()
        body["output"] = self.output.to_dict()
        for name in ("sampling", "continuation", "output", "priority", "max_attempts"):
            if not body[name]:
                del body[name]  # As before there was any: a request from before an upgrade may be repeated after it.
        return hashlib.sha256(json.dumps(body, sort_keys=True, default=dict).encode()).hexdigest()[:16]


def create(
    session: Session,
    new: NewGeneration,
    *,
    max_attempts: int = 3,
    file_path: str | None = None,
    model_version: str | None = None,
) -> Generation:
    """Records a generation as PENDING and counts its prompt; or gives the one that the same request made before.

    InvalidArgument names the field at fault, or `request_id` where it was used for another request.
    """
    new.check()
    row, is_new = _insert(session, new, max_attempts, file_path=file_path, model_version=model_version)
    if is_new:
        prompts.count_uses(session, [new.prompt])
    return row


def create_all(session: Session, news: Sequence[NewGeneration], *, max_attempts: int = 3) -> list[Generation]:
    """As `create` for each, in their order. InvalidArgument names the first field at fault, as "requests[2].prompt"."""
    if not 1 <= len(news) <= MAX_BATCH:
        raise InvalidArgument("requests", f"must be 1 to {MAX_BATCH} requests, not {len(news)}")
    rows, texts = [], []
    for index, new in enumerate(news):
        try:
            new.check()
            row, is_new = _insert(session, new, max_attempts)
        except InvalidArgument as error:
            raise InvalidArgument(f"requests[{index}].{error.field}", error.problem, reason=error.reason) from error
        rows.append(row)
        texts += [new.prompt] * is_new
    prompts.count_uses(session, texts)
    return rows


def _insert(
    session: Session,
    new: NewGeneration,
    max_attempts: int,
    *,
    file_path: str | None = None,
    model_version: str | None = None,
) -> tuple[Generation, bool]:
    """The row, and whether it is a new one."""
    request_id = new.request_id and new.request_id.lower()
    change = Change(str(uuid.uuid4()), new.model_name, is_claimable=True)
    row = {
        "id": change.generation_id,
        "prompt": new.prompt,
        "model_name": new.model_name,
        "model_version": model_version,
        "status": GenerationStatus.PENDING,
        "duration_seconds": new.duration_seconds,
        "sample_rate": new.sample_rate,
        "channels": new.channels,
        "seed": draw_seed() if new.seed is None else new.seed,
        "output": new.output.to_dict() or None,
        "file_path": file_path,
        "sampling": dict(new.sampling) or None,
        "continuation": new.continuation and new.continuation.to_dict(),
        "metadata_": dict(new.metadata),
        "request_id": request_id,
        "request_fingerprint": new.fingerprint() if request_id else None,
        "priority": new.priority,
        "attempt": 0,
        "max_attempts": new.max_attempts or max_attempts,
        "progress": 0.0,
    }
    dialect, connection = dialect_of(session), session.connection()
    values = {**row, "priority_of_rank": new.priority}
    if dialect == "postgresql":
        values["announcement"] = build_announcement(session, change)
    while True:
        made = connection.execute(_insertion(dialect), values).one_or_none()
        if made is not None:
            record_change(session, change, is_announced=True)
            return _loaded(session, {**row, "created_at": made.created_at, "ranked_at": made.ranked_at}), True
        earlier = _created_before(session, new)
        if earlier is not None:  # Else somebody deleted it since: it is to be made after all.
            return earlier, False


def _loaded(session: Session, row: Mapping[str, Any]) -> Generation:
    """The object that loading the new row would give, in a fifth of the time."""
    generation: Generation = inspect(Generation).class_manager.new_instance()
    vars(generation).update({**_NOTHING, **row})
    make_transient_to_detached(generation)
    session.add(generation)
    return generation


@cache
def _insertion(dialect: str) -> Executable:
    """Built once: building it takes longer than running it."""
    columns = Generation.__table__.c
    statement = insert_into(dialect, Generation).values(
        created_at=now(),
        ranked_at=queue.rank(bindparam("priority_of_rank", type_=Integer)),
        metadata=bindparam("metadata_", type_=columns.metadata.type),
    )
    once = statement.on_conflict_do_nothing(index_elements=[columns.request_id])
    if dialect == "sqlite":
        return once.returning(columns.created_at, columns.ranked_at)
    told = func.pg_notify(CHANNEL, bindparam("announcement", type_=Text))  # Here it is no round trip of its own.
    return once.returning(columns.created_at, columns.ranked_at, told)


def _created_before(session: Session, new: NewGeneration) -> Generation | None:
    wanted = select(Generation).where(Generation.request_id == str(new.request_id).lower())
    earlier = session.scalars(wanted).one_or_none()
    if earlier is None:
        return None
    # Rows from before the schema's revision 0003 have all 256 bits.
    if (earlier.request_fingerprint or "")[:16] != new.fingerprint():
        raise InvalidArgument(
            "request_id",
            f"was used for another request, which made generation {earlier.id}; use a new UUID for a new request",
            reason="REQUEST_ID_REUSED",
        )
    return earlier
