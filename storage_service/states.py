"""The states of a generation and the one table of legal moves between them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from dgx_music.errors import FailedPrecondition


class GenerationStatus(StrEnum):
    """Where a generation stands; each member equals its string."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class GenerationStage(StrEnum):
    """What a worker is doing for a generation that is PROCESSING."""

    QUEUED = "queued"
    LOADING_MODEL = "loading_model"
    ENCODING_PROMPT = "encoding_prompt"
    GENERATING = "generating"
    EXPORTING = "exporting"


FINISHED = frozenset({GenerationStatus.COMPLETED, GenerationStatus.FAILED, GenerationStatus.CANCELLED})
"""States in which nobody works on a generation and nobody is about to."""


@dataclass(frozen=True)
class Transition:
    """A legal move: from any of `sources` to one of `targets`."""

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
RETRY = _transition("retry", {GenerationStatus.FAILED}, {GenerationStatus.PENDING})

TRANSITIONS = (CLAIM, COMPLETE, FAIL, CANCEL, RETRY)
"""Every move there is between two states. A lease that expires is a FAIL that nobody reported."""

DELETABLE = frozenset(GenerationStatus) - {GenerationStatus.PROCESSING}
"""States in which a row may be removed."""


def sources_of(target: GenerationStatus) -> frozenset[GenerationStatus]:
    """The states that a generation may come from to be in `target`."""
    return frozenset[GenerationStatus]().union(*(move.sources for move in TRANSITIONS if target in move.targets))


def illegal_transition(
    generation_id: str, action: str, current: GenerationStatus, allowed: frozenset[GenerationStatus]
) -> FailedPrecondition:
    """The error of an `action` on a generation that is in state `current`, where only `allowed` would do."""
    names = [status.name for status in GenerationStatus if status in allowed]
    return FailedPrecondition(
        f"cannot {action} generation {generation_id}: it is {current.name}, and would have to be {' or '.join(names)}",
        reason="ILLEGAL_TRANSITION",
        metadata={"generation_id": generation_id, "current_state": current.name, "allowed_states": ", ".join(names)},
    )
