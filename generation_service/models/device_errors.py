"""Classifies errors of torch, Triton and the CUDA libraries by their consequence for the device.

They arrive as RuntimeError (torch.AcceleratorError and torch.OutOfMemoryError are subclasses of it), so that only the
message tells them apart. Messages of torch 2.11 to 2.13 and Triton 3.6 and 3.7.
"""

from __future__ import annotations

import errno

_OUT_OF_MEMORY_MESSAGES = (
    "out of memory",  # torch's and Triton's allocations, and the driver's.
    "can't allocate memory",  # torch's CPU allocator.
    "STATUS_ALLOC_FAILED",  # cuBLAS, cuDNN and the other CUDA libraries.
    "CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate",  # There was no room for cuBLAS's own workspace.
    "NVML_SUCCESS == ",  # torch failed to ask NVML for the figures of its out-of-memory message, e.g. on a Jetson.
)
_DEVICE_MESSAGES = (
    "CUDA error",
    "CUDA driver error",
    "cuDNN error",
    "CUDNN_STATUS_",
    "Triton Error [CUDA]",
    "device-side assert",
    "uncorrectable ECC error",
)
"""One of these is in every message about a failure on the GPU."""
_HARMLESS_MESSAGES = (
    "invalid argument",
    "invalid configuration argument",
    "invalid resource handle",
    "invalid device ordinal",
    "invalid device function",
    "no kernel image is available",
    "kernel image is invalid",
    "named symbol not found",
    "too many resources requested for launch",
    "operation not supported",
    "stream is capturing",
    "during capture",
    "capturing blocking stream",
    "STATUS_INVALID_VALUE",
    "STATUS_BAD_PARAM",
    "STATUS_NOT_SUPPORTED",
    "STATUS_ARCH_MISMATCH",
    "PTX JIT compilation failed",
    "Failed to create tensor map descriptor",
)
"""Rejected calls: nothing ran, and the next call works. Every other error of the device counts as fatal, because CUDA
documents most of them as sticky, and replacing the process is safe."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed. Everything else on the device remains valid."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and _mentions(error, _OUT_OF_MEMORY_MESSAGES)
    )


def is_fatal(error: BaseException) -> bool:
    """Whether the process has lost the device: after such an error, every further CUDA call fails too.

    An error that was raised while another was handled, or because of it, is fatal if that one is.
    """
    seen: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in seen:
        if _is_fatal_itself(current):
            return True
        seen.append(current)
        current = current.__cause__ or current.__context__
    return False


def _is_fatal_itself(error: BaseException) -> bool:
    return (
        isinstance(error, RuntimeError)
        and _mentions(error, _DEVICE_MESSAGES)
        and not _mentions(error, _HARMLESS_MESSAGES)
        and not is_out_of_memory(error)
    )


def _mentions(error: BaseException, parts: tuple[str, ...]) -> bool:
    message = str(error)
    return any(part in message for part in parts)
