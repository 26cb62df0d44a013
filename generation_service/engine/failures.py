"""What a model's failure means: for the request, for those after it, for the process."""

from __future__ import annotations

import traceback

from dgx_music.errors import ResourceExhausted, ServiceError
from generation_service.engine.sequence import Sequence
from generation_service.models.device_errors import is_out_of_memory

RETRY_SECONDS = 10.0


def model_error(name: str, when: str, error: Exception) -> ServiceError:
    """What the caller is told of a model's failure."""
    if isinstance(error, ServiceError):
        return error
    failed: ServiceError
    if is_out_of_memory(error):
        # The frames that it came through still hold the tensors there was no room beside.
        traceback.clear_frames(error.__traceback__)
        failed = ResourceExhausted(
            f"model {name!r} ran out of memory {when}; ask for less at once, or a shorter duration",
            reason="MODEL_OUT_OF_MEMORY",
            retry_after_seconds=RETRY_SECONDS,
        )
    else:
        failed = ServiceError(f"model {name!r} failed {when}: {describe(error)}", reason="MODEL_FAILED")
    failed.__cause__ = error
    return failed


def wrong_output(sequence: Sequence, what: str) -> ServiceError:
    """A model that did not keep to `generation_service.models.base.Model.step`."""
    name, steps = sequence.info.name, sequence.steps
    return ServiceError(f"model {name!r} broke its word at step {steps}: it made {what}", reason="MODEL_OUTPUT")


def describe(error: BaseException) -> str:
    """Its type and message in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")[:500]
