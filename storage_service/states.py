"""The states of a generation and the one table of legal transitions between them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from dgx_music.errors import FailedPrecondition


class GenerationStatus(StrEnum):
    """The state of a generation. Each member equals its string."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class GenerationStage(StrEnum):
    """What a worker is currently doing for a generation that is PROCESSING."""

    QUEUED = "queued"
    LOADING_MODEL = "loading_model"
    ENCODING_PROMPT = "encoding_prompt"
    GENERATING = "generating"
    EXPORTING = "exporting"


TERMINAL_STATES = frozenset({GenerationStatus.COMPLETED, GenerationStatus.FAILED, GenerationStatus.CANCELLED})
"""States that a generation does not leave by itself; only a retry takes it out of FAILED."""


@dataclass(frozen=True)
class Transition:
    """A legal transition: from any of `sources` to one of `targets`."""

    name: str
    sources: frozenset[GenerationStatus]
    targets: frozenset[GenerationStatus]


def _transition(name: str, sources: set[GenerationStatus], targets: set[GenerationStatus]) -> Transition:
    return Transition(name, frozenset(sources), frozenset(targets))


CLAIM = _transition("claim", {GenerationStatus.PENDING}, {GenerationStatus.PROCESSING})
RENEW = _transition("renew the lease of", {GenerationStatus.PROCESSING}, {GenerationStatus.PROCESSING})
COMPLETE = _transition("complete", {GenerationStatus.PROCESSING}, {GenerationStatus.COMPLETED})
FAIL = _transition("fail", {GenerationStatus.PROCESSING}, {GenerationStatus.PENDING, GenerationStatus.FAILED})
CANCEL = _transition("cancel", {GenerationStatus.PENDING, GenerationStatus.PROCESSING}, {GenerationStatus.CANCELLED})
UPDATE_FILE = _transition("update the file of", {GenerationStatus.COMPLETED}, {GenerationStatus.COMPLETED})
RETRY = _transition("retry", {GenerationStatus.FAILED}, {GenerationStatus.PENDING})

TRANSITIONS = (CLAIM, COMPLETE, FAIL, CANCEL, RETRY)
"""All transitions between two different states. An expired lease is a FAIL that no worker reported."""

DELETABLE_STATES = frozenset(GenerationStatus) - {GenerationStatus.PROCESSING}
"""States in which a row may be deleted."""


def source_states(target: GenerationStatus) -> frozenset[GenerationStatus]:
    """Returns the states from which a generation may enter `target`."""
    return frozenset[GenerationStatus]().union(*(each.sources for each in TRANSITIONS if target in each.targets))


def illegal_transition_error(
    generation_id: str, action: str, current: GenerationStatus, allowed: frozenset[GenerationStatus]
) -> FailedPrecondition:
    """Returns the error for an `action` on a generation in state `current` that is legal only in `allowed`."""
    names = [status.name for status in GenerationStatus if status in allowed]
    return FailedPrecondition(
        f"cannot {action} generation {generation_id}: it is {current.name}, but must be {' or '.join(names)}",
        reason="ILLEGAL_TRANSITION",
        metadata={"generation_id": generation_id, "current_state": current.name, "allowed_states": ", ".join(names)},
    )
