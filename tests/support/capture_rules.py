"""What the capture of a CUDA graph forbids, checked on tensors of any device: `capture_rules`, `assert_capturable`.

A captured graph repeats the same kernels, with the same arguments, at the same addresses. So code in it must not read a
tensor on the host, must not have shapes that depend on values, must not move data between the host and the device, and
must not pass a Python value that changes from step to step. On a GPU a violation fails at the capture at best, and else
replays old values. Source: "CUDA semantics, Constraints" in PyTorch's documentation.

On CPU tensors a copy to the CPU does nothing, so this looks at the calls, not at what they do: `.cpu()`, `.to("cpu")`,
and a tensor that is created without `device=` are violations, whatever device the test runs on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode


class CaptureViolation(AssertionError):
    """Code that was to be captured did what a capture forbids."""


@dataclass(frozen=True, slots=True)
class Operator:
    """One call of an operator. Two that differ in anything can't be replayed by one graph."""

    name: str
    arguments: tuple[object, ...]
    """Python values, and of a tensor its type and shape; if it existed before, also its address and strides."""


@dataclass(slots=True)
class Trace:
    """The operators of a run, in order."""

    operators: list[Operator] = field(default_factory=list)


@contextlib.contextmanager
def capture_rules() -> Iterator[Trace]:
    """Raises CaptureViolation at a call that a capture forbids. Usable on the CPU, and around a run on CUDA, where it
    also lets torch raise at each synchronization that it knows of."""
    trace = Trace()
    debug_mode = torch.cuda.get_sync_debug_mode() if torch.cuda.is_available() else None
    try:
        if debug_mode is not None:
            torch.cuda.set_sync_debug_mode("error")
        with _PythonCalls(), _Operators(trace):
            yield trace
    finally:
        if debug_mode is not None:
            torch.cuda.set_sync_debug_mode(debug_mode)


def assert_capturable(
    step: Callable[[], object], *, between: Callable[[], object] = lambda: None, runs: int = 2
) -> Trace:
    """Runs a step several times, with `between` before each run but the first, which may change values of the step's
    tensors in place, as the host does between two steps.

    Raises CaptureViolation if a run does what a capture forbids, or does not repeat the first one's operators with the
    same Python values, shapes and addresses.
    """
    traces = []
    for run in range(runs):
        if run:
            between()
        with capture_rules() as trace:
            step()
        traces.append(trace)
    for run, trace in enumerate(traces[1:], 2):
        assert_same_operators(traces[0], trace, f"run {run}")
    return traces[0]


def assert_same_operators(first: Trace, second: Trace, name: str = "the second run") -> None:
    """Raises CaptureViolation at the first operator in which two runs differ."""
    for index, (expected, actual) in enumerate(zip(first.operators, second.operators, strict=False)):
        if expected != actual:
            raise CaptureViolation(f"{name} differs from the first at operator {index}: {actual}, not {expected}")
    if len(first.operators) != len(second.operators):
        raise CaptureViolation(f"{name} has {len(second.operators)} operators, the first {len(first.operators)}")


_HOST_READS = {
    *("item", "tolist", "numpy", "cpu", "__array__", "__bool__", "__int__", "__float__", "__index__", "__complex__"),
    *("__contains__", "__repr__", "__format__", "__dlpack__"),
}
"""Methods of a tensor that read it on the host."""
_FACTORIES = {
    *("zeros", "ones", "empty", "full", "arange", "linspace", "logspace", "eye", "empty_strided", "tril_indices"),
    *("triu_indices", "hann_window"),
}
"""Functions that create a tensor on the default device unless they are told another."""


class _PythonCalls(TorchFunctionMode):
    """Sees the calls as they are written, before torch resolves devices and defaults."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in _HOST_READS:
            raise CaptureViolation(f"Tensor.{name} reads a tensor on the host")
        if name in _FACTORIES and kwargs.get("device") is None and kwargs.get("out") is None:
            raise CaptureViolation(f"torch.{name} without device= creates a tensor on the CPU")
        if name in ("to", "cuda", "pin_memory") and _names_host_or_device(args[1:], kwargs, name):
            raise CaptureViolation(f"Tensor.{name}{args[1:]} copies to a device by name")
        return func(*args, **kwargs)


def _names_host_or_device(args: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> bool:
    # A device that is taken from another tensor is a torch.device; `.to(x.device)` of a tensor on it copies nothing.
    return name != "to" or any(isinstance(value, str) for value in (*args, kwargs.get("device")))


class _Operators(TorchDispatchMode):
    """Sees the operators that torch runs, also those within its own functions."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self._trace = trace
        self._produced: dict[int, Tensor] = {}
        """The tensors that this run has made, by the address of their storage. They are kept alive, so that no other
        tensor gets the same address."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        # In inference mode, operators that consist of others arrive whole, and would hide what those do.
        with self:
            result = func.decompose(*args, **kwargs)
        if result is not NotImplemented:
            return result
        name = func._schema.name.removeprefix("aten::")
        values = pytree.tree_leaves((args, kwargs))
        tensors = [value for value in values if isinstance(value, Tensor)]
        _require_capturable(func, name, args, kwargs, tensors)
        arguments = tuple(self._describe(value) for value in values)
        self._trace.operators.append(Operator(name, arguments))
        result = func(*args, **kwargs)
        for tensor in pytree.tree_leaves(result):
            if isinstance(tensor, Tensor) and not any(_shares_storage(tensor, argument) for argument in tensors):
                self._produced[_address(tensor)] = tensor
        return result

    def _describe(self, value: object) -> object:
        if not isinstance(value, Tensor):
            return value if isinstance(value, int | float | bool | str | None) else str(value)
        description = (str(value.dtype), str(value.device), tuple(value.shape))
        if value.is_mkldnn:  # Weights of the CPU's own layout, which have no address to read.
            return (*description, id(value))
        if _address(value) in self._produced:
            return description
        return (*description, value.data_ptr(), value.stride())


def _require_capturable(
    func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], tensors: list[Tensor]
) -> None:
    if torch.Tag.data_dependent_output in func.tags:
        raise CaptureViolation(f"{name} reads a tensor on the host")
    if name in ("index", "index_put", "index_put_"):
        if any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]):
            raise CaptureViolation(f"{name} with a mask has a shape that depends on values; use torch.where")
    elif torch.Tag.dynamic_output_shape in func.tags:
        raise CaptureViolation(f"the shape of the result of {name} depends on values")
    if torch.Tag.nondeterministic_seeded in func.tags and "attention" not in name:  # Attention has a dropout of 0.
        raise CaptureViolation(f"{name} draws from a generator of torch, which does not depend on the request's seed")
    if name == "lift_fresh":
        raise CaptureViolation("a tensor is created from Python values; create it before the step")
    if name in ("resize_", "set_"):
        raise CaptureViolation(f"{name} replaces the memory of a tensor")
    devices = {tensor.device.type for tensor in tensors if tensor.dim()} | _target_devices(kwargs)
    if len(devices) > 1:
        raise CaptureViolation(f"{name} mixes or copies between devices: {', '.join(sorted(devices))}")


def _target_devices(kwargs: dict[str, Any]) -> set[str]:
    device = kwargs.get("device")
    return set() if device is None else {torch.device(device).type}


def _address(tensor: Tensor) -> int:
    return id(tensor) if tensor.is_mkldnn else tensor.untyped_storage().data_ptr()


def _shares_storage(tensor: Tensor, other: Tensor) -> bool:
    if tensor.is_mkldnn or other.is_mkldnn:
        return tensor is other
    return bool(tensor.untyped_storage()._cdata == other.untyped_storage()._cdata)
