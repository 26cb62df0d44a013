"""What an error of torch means for the device it came from."""

from __future__ import annotations

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
