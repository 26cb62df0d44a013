"""What was acknowledged to the clients of a soak, which it is held to at the end."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from dgx_music.storage.v1 import storage_pb2 as storage
from tests.soak.schedule import Job

PENDING, PROCESSING, COMPLETED, FAILED, CANCELLED = (
    storage.GENERATION_STATE_PENDING,
    storage.GENERATION_STATE_PROCESSING,
    storage.GENERATION_STATE_COMPLETED,
    storage.GENERATION_STATE_FAILED,
    storage.GENERATION_STATE_CANCELLED,
)


@dataclass
class Entry:
    """One generation."""

    job: Job
    id: str
    request: storage.CreateGenerationRequest
    source: Entry | None = None
    """What it was made from."""
    state: int = PENDING
    """The last one that was acknowledged as final."""
    is_deleted: bool = False
    rating: int = 0
    title: str = ""
    renders: set[str] = field(default_factory=set)

    @property
    def subject(self) -> str:
        return f"job {self.job.number} ({self.job.shape}), generation {self.id}"


@dataclass
class Ledger:
    """All generations that clients know of."""

    entries: list[Entry] = field(default_factory=list)
    prompts: Counter[str] = field(default_factory=Counter)
    """Text → number of generations created with it."""
    counts: Counter[str] = field(default_factory=Counter)
    """What was done how often, for the report."""

    def add(self, entry: Entry) -> Entry:
        self.entries.append(entry)
        self.prompts[entry.request.prompt] += 1
        return entry

    def find_source(self, job: Job) -> Entry | None:
        """Returns finished music that stays, and that an edit can keep sample for sample."""
        fitting = [
            entry
            for entry in self.entries
            if entry.state == COMPLETED
            and entry.job.format == "WAV_PCM_24"
            and not {"delete", "delete early", "cancel"} & set(entry.job.deeds)
            and entry.request.duration_seconds < 8
        ]
        return fitting[int(job.position * len(fitting))] if fitting else None
