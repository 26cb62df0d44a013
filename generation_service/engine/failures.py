"""What a model's failure means: for the request, for those after it, for the process."""

from __future__ import annotations

import traceback

from dgx_music.errors import ResourceExhausted, ServiceError
from generation_service.engine.sequence import Sequence

RETRY_SECONDS = 10.0
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "STATUS_ALLOC_FAILED")
"""How torch's allocators and cuBLAS say it, of the host's memory and of a GPU's."""
_DEVICE_ERROR = "CUDA error"
"""Begins every message of a `torch.AcceleratorError`."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether there was no memory for what was asked; all else that the device holds is sound."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)
    )


def is_fatal(error: BaseException) -> bool:
    """Whether the device is lost to this process: after such an error every further CUDA call fails as well."""
    return isinstance(error, RuntimeError) and _DEVICE_ERROR in str(error) and not is_out_of_memory(error)


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
