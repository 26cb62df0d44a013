"""Which errors mean that memory is short, and which that the device is lost. The messages are torch's and Triton's."""

from __future__ import annotations

import errno

import pytest

from generation_service.models.device_errors import is_fatal, is_out_of_memory

OUT_OF_MEMORY = [
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 139.81 GiB",
    "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call",
    "CUDA driver error: out of memory",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "Triton Error [CUDA]: out of memory",
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory",
    'NVML_SUCCESS == r INTERNAL ASSERT FAILED at "../c10/cuda/CUDACachingAllocator.cpp":995, please report a bug',
]
FATAL = [
    "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously reported",
    "CUDA error: device-side assert triggered",
    "CUDA error: unspecified launch failure",
    "CUDA error: misaligned address",
    "CUDA error: the launch timed out and was terminated",
    "CUDA error: uncorrectable ECC error encountered",
    "CUDA error: uncorrectable NVLink error detected during the execution",
    "CUDA error: unknown error",
    "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx( handle, opa, opb, m, n, k)`",
    "CUDA driver error: an illegal memory access was encountered",
    "CUDA driver error: device not ready",
    "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
    "Triton Error [CUDA]: an illegal memory access was encountered",
    "Triton Error [CUDA]: unspecified launch failure",
]
HARMLESS = [
    "CUDA error: invalid argument",
    "CUDA error: invalid configuration argument",
    "CUDA error: no kernel image is available for execution on the device",
    "CUDA error: too many resources requested for launch",
    "CUDA error: operation not permitted when stream is capturing",
    "CUDA error: operation failed due to a previous error during capture",
    "CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasLtMatmulAlgoGetHeuristic(...)`",
    "CUDA error: CUBLAS_STATUS_INVALID_VALUE when calling `cublasGemmEx(...)`",
    "CUDA driver error: a PTX JIT compilation failed",
    "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED",
    "Triton Error [CUDA]: device kernel image is invalid",
    "mat1 and mat2 shapes cannot be multiplied (1x2 and 3x4)",
]


@pytest.mark.parametrize("message", OUT_OF_MEMORY)
def test_out_of_memory_leaves_the_device_as_it_is(message):
    error = RuntimeError(message)
    assert (is_out_of_memory(error), is_fatal(error)) == (True, False)


@pytest.mark.parametrize("message", FATAL)
def test_sticky_error_means_that_the_device_is_lost(message):
    error = RuntimeError(message)
    assert (is_out_of_memory(error), is_fatal(error)) == (False, True)


@pytest.mark.parametrize("message", HARMLESS)
def test_rejected_call_leaves_the_device_as_it_is(message):
    error = RuntimeError(message)
    assert (is_out_of_memory(error), is_fatal(error)) == (False, False)


def test_message_alone_is_not_enough():
    error = ValueError("CUDA error: device-side assert triggered, or out of memory?")
    assert (is_out_of_memory(error), is_fatal(error)) == (False, False)


def test_errors_of_python_and_the_system():
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(OSError(errno.ENOMEM, "Cannot allocate memory"))
    assert not is_out_of_memory(OSError(errno.ENOENT, "No such file"))


def raise_because_of_a_fatal_error():
    try:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    except RuntimeError as cause:
        raise KeyError("row 7") from cause


def raise_after_a_fatal_error():
    try:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    finally:
        raise KeyError("row 7")


@pytest.mark.parametrize("function", [raise_because_of_a_fatal_error, raise_after_a_fatal_error])
def test_error_that_follows_a_fatal_one_is_fatal(function):
    with pytest.raises(KeyError) as caught:
        function()
    assert is_fatal(caught.value)


def test_error_that_is_its_own_cause_is_looked_at_once():
    error = RuntimeError("first")
    error.__cause__ = RuntimeError("second")
    error.__cause__.__cause__ = error
    assert not is_fatal(error)


def test_real_errors_of_torch_and_triton():
    torch = pytest.importorskip("torch", reason="torch raises them")
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert (is_out_of_memory(caught.value), is_fatal(caught.value)) == (True, False)
    assert is_out_of_memory(torch.OutOfMemoryError(OUT_OF_MEMORY[0]))
    assert is_fatal(torch.AcceleratorError("CUDA error: device-side assert triggered"))
    assert not is_fatal(torch.AcceleratorError("CUDA error: invalid argument"))
    with pytest.raises(RuntimeError) as caught:
        torch.zeros(2, 3) @ torch.zeros(2, 3)
    assert (is_out_of_memory(caught.value), is_fatal(caught.value)) == (False, False)
    errors = pytest.importorskip("triton.runtime.errors", reason="Triton raises them")
    too_much_shared_memory = errors.OutOfResources(300_000, 232_448, "shared memory")
    assert (is_out_of_memory(too_much_shared_memory), is_fatal(too_much_shared_memory)) == (False, False)
