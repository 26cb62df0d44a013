"""CUDA graphs of computations, one per shape; and a stand-in for devices without graphs, which calls the functions."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Protocol

import torch

_WARM_UP_RUNS = 2
"""Runs before a capture, because libraries choose kernels and allocate workspaces at their first calls."""


class StepGraphs(Protocol):
    """Computations on tensors at fixed addresses, by shape."""

    def __contains__(self, shape: Hashable) -> bool: ...

    def capture(self, shape: Hashable, compute: Callable[[], None]) -> None:
        """Prepares a computation, and runs it a few times. It must not synchronize, nor change what it reads."""
        ...

    def discard(self, shapes: Callable[[Hashable], bool]) -> None:
        """Drops the computations of some shapes, once the device has finished them."""
        ...

    def replay(self, shape: Hashable) -> None:
        """Launches the captured computation. It reads what its tensors hold when the device gets to it."""
        ...


class CudaGraphs:
    """Implements `StepGraphs`. Called on one thread and on one stream, which is not the default one."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}

    def __contains__(self, shape: Hashable) -> bool:
        return shape in self._graphs

    def capture(self, shape: Hashable, compute: Callable[[], None]) -> None:
        stream = torch.cuda.current_stream()
        for _ in range(_WARM_UP_RUNS):
            compute()
        graph = torch.cuda.CUDAGraph()
        # All graphs share the memory of their temporary tensors: they run one after another, and what they yield is in
        # tensors of their caller. thread_local: calls of other threads do not invalidate the capture.
        with torch.cuda.graph(graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"):
            compute()
        self._graphs[shape] = graph

    def discard(self, shapes: Callable[[Hashable], bool]) -> None:
        torch.cuda.current_stream().synchronize()
        self._graphs = {shape: graph for shape, graph in self._graphs.items() if not shapes(shape)}

    def replay(self, shape: Hashable) -> None:
        self._graphs[shape].replay()


class DirectCalls:
    """Implements `StepGraphs` on any device."""

    def __init__(self) -> None:
        self._functions: dict[Hashable, Callable[[], None]] = {}

    def __contains__(self, shape: Hashable) -> bool:
        return shape in self._functions

    def capture(self, shape: Hashable, compute: Callable[[], None]) -> None:
        compute()
        self._functions[shape] = compute

    def discard(self, shapes: Callable[[Hashable], bool]) -> None:
        self._functions = {shape: compute for shape, compute in self._functions.items() if not shapes(shape)}

    def replay(self, shape: Hashable) -> None:
        self._functions[shape]()
