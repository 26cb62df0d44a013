"""A generation's beginning: its row and the use of its prompt, in one transaction, once for each request id."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service_runtime.errors import InvalidArgument
from service_runtime.output import OutputOptions
from storage_service import prompts
from storage_service.continuation import Continuation
from storage_service.models import RETURNED_ROW_WINS, Generation, draw_seed
from storage_service.notifier import Change, note
from storage_service.sampling import Sampling, check_sampling
from storage_service.states import GenerationStatus
from storage_service.upsert import insert_into
from storage_service.validation import MAX_SEED, check_metadata, check_name, check_prompt, check_range, check_uuid


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
    sampling: Sampling = field(default_factory=dict)
    continuation: Continuation | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
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
            check_range("seed", self.seed, 0, MAX_SEED)
        self.output.check("output")
        check_sampling("sampling", self.sampling)
        if self.continuation is not None:
            self.continuation.check("continuation")
        check_metadata("metadata", self.metadata)

    def fingerprint(self) -> str:
        """The same for requests that ask for the same: SHA-256 over all but the request id."""
        body = {name: value for name, value in vars(self).items() if name != "request_id"}
        body["continuation"] = self.continuation and self.continuation.as_kept()
        body["output"] = self.output.as_kept()
        for name in ("sampling", "continuation", "output"):
            if not body[name]:
                del body[name]  # As before there was any: a request from before an upgrade may be repeated after it.
        return hashlib.sha256(json.dumps(body, sort_keys=True, default=dict).encode()).hexdigest()


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
    request_id = new.request_id and new.request_id.lower()
    row = {
        "id": str(uuid.uuid4()),
        "prompt": new.prompt,
        "model_name": new.model_name,
        "model_version": model_version,
        "status": GenerationStatus.PENDING,
        "duration_seconds": new.duration_seconds,
        "sample_rate": new.sample_rate,
        "channels": new.channels,
        "seed": draw_seed() if new.seed is None else new.seed,
        "output": new.output.as_kept() or None,
        "file_path": file_path,
        "sampling": dict(new.sampling) or None,
        "continuation": new.continuation and new.continuation.as_kept(),
        "metadata_": dict(new.metadata),
        "request_id": request_id,
        "request_fingerprint": new.fingerprint() if request_id else None,
        "max_attempts": max_attempts,
    }
    statement = insert_into(session, Generation).values(row)
    once = statement.on_conflict_do_nothing(index_elements=[Generation.request_id]).returning(Generation)
    created = session.scalars(once, execution_options=RETURNED_ROW_WINS).one_or_none()
    if created is None:
        return _created_before(session, new)
    prompts.count_use(session, new.prompt)
    note(session, Change(created.id, created.model_name, claimable=True))
    return created


def _created_before(session: Session, new: NewGeneration) -> Generation:
    earlier = session.scalars(select(Generation).where(Generation.request_id == str(new.request_id).lower())).one()
    if earlier.request_fingerprint != new.fingerprint():
        raise InvalidArgument(
            "request_id",
            f"was used for another request, which made generation {earlier.id}; use a new UUID for a new request",
            reason="REQUEST_ID_REUSED",
        )
    return earlier
