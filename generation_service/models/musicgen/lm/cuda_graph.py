"""CUDA graphs of a model's decode steps: one per step shape, captured when the shape first occurs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from generation_service.models.musicgen.lm.static_language_model import StepShape

_WARM_UP_RUNS = 2
"""Runs before a capture, because libraries choose kernels and allocate workspaces at their first call."""


class CudaGraphRunner:
    """A `static_language_model.StepRunner`. Created and called on the one thread that uses the GPU.

    The graphs share a memory pool, so a result is valid only until the next graph runs.
    """

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._graphs: dict[StepShape, tuple[torch.cuda.CUDAGraph, Tensor]] = {}

    def __call__(self, shape: StepShape, compute: Callable[[], Tensor]) -> Tensor:
        """`compute` may run several times, must use tensors at fixed addresses, and must not synchronize."""
        if shape not in self._graphs:
            self._graphs[shape] = self._capture(compute)
        graph, result = self._graphs[shape]
        graph.replay()
        return result

    def __len__(self) -> int:
        return len(self._graphs)

    def _capture(self, compute: Callable[[], Tensor]) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP_RUNS):
                compute()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # thread_local: calls of other threads during the capture, such as for the free memory, do not invalidate it.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            result = compute()
        return graph, result
