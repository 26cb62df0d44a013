"""Turns the failure of a model into the error that the caller of a request gets."""

from __future__ import annotations

import re
import traceback

from dgx_music.errors import DeadlineExceeded, ResourceExhausted, ServiceError
from generation_service.engine.sequence import Sequence
from generation_service.models.device_errors import is_out_of_memory

OUT_OF_MEMORY_RETRY_SECONDS = 10.0
MAX_ERROR_CHARACTERS = 500


def to_service_error(name: str, when: str, error: Exception) -> ServiceError:
    """Returns the error to report for an exception that the model `name` raised; `when` says during what."""
    if isinstance(error, ServiceError):
        return error
    failure: ServiceError
    if is_out_of_memory(error):
        free_tensors(error)
        needed = re.search(r"[Tt]ried to allocate ([\d.]+ \w+)", str(error))
        failure = ResourceExhausted(
            f"model {name!r} ran out of memory {when}"
            + (f", where it needed {needed[1]} more" if needed else "")
            + "; reduce the number of concurrent requests or the duration",
            reason="MODEL_OUT_OF_MEMORY",
            retry_after_seconds=OUT_OF_MEMORY_RETRY_SECONDS,
        )
    else:
        failure = ServiceError(f"model {name!r} failed {when}: {format_error(error)}", reason="MODEL_FAILED")
    failure.__cause__ = error
    return failure


def free_tensors(error: BaseException) -> None:
    """Frees the tensors that the frames of a failed call still hold. They may be what filled the memory."""
    traceback.clear_frames(error.__traceback__)


def invalid_output_error(sequence: Sequence, output: str) -> ServiceError:
    """Returns the error for output that violates the contract of `generation_service.models.base.Model.step`."""
    name, steps = sequence.info.name, sequence.steps
    return ServiceError(f"model {name!r} returned invalid output at step {steps}: {output}", reason="MODEL_OUTPUT")


def deadline_error(sequence: Sequence, now: float, shortest_seconds: float) -> DeadlineExceeded:
    """Returns the error for a waiting request whose deadline can't be met."""
    assert sequence.deadline is not None
    waited, remaining = now - sequence.timings.submitted_at, sequence.deadline - now
    if remaining <= 0.0:
        problem = f"the deadline passed after the request had waited {waited:.1f} s for a place in the batch"
    else:
        problem = (
            f"{sequence.audio_seconds:g} s of audio take at least {shortest_seconds:.1f} s at present, "
            f"but the deadline is in {remaining:.1f} s"
        )
    return DeadlineExceeded(f"{problem}; allow more time, or retry when the server is less busy", reason="DEADLINE")


def format_error(error: BaseException) -> str:
    """Returns the exception's type and message on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")[:MAX_ERROR_CHARACTERS]
