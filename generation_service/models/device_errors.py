"""Classifies errors of torch by their consequence for the device."""

from __future__ import annotations

_OUT_OF_MEMORY_MESSAGES = ("out of memory", "can't allocate memory", "STATUS_ALLOC_FAILED")
"""Parts of the messages of torch's CPU and GPU allocators and of cuBLAS."""
_DEVICE_ERROR_MESSAGE = "CUDA error"
"""The start of every message of a `torch.AcceleratorError`."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed. Everything else on the device remains valid."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(message in str(error) for message in _OUT_OF_MEMORY_MESSAGES)
    )


def is_fatal(error: BaseException) -> bool:
    """Whether the process has lost the device: after such an error, every further CUDA call fails too."""
    return isinstance(error, RuntimeError) and _DEVICE_ERROR_MESSAGE in str(error) and not is_out_of_memory(error)
