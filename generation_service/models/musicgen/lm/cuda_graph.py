"""CUDA graphs of a model's steps, one for each shape, captured when it first comes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from generation_service.models.musicgen.lm.static_language_model import Shape

_WARM_UP_RUNS = 2
"""Before a capture: libraries choose their kernels and take their workspaces at the first call."""


class CudaGraphs:
    """A `static_lm.Runner`. Made and called on the one thread that uses the GPU.

    The graphs share their memory: what one returns is there until the next one runs.
    """

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._graphs: dict[Shape, tuple[torch.cuda.CUDAGraph, Tensor]] = {}

    def __call__(self, shape: Shape, compute: Callable[[], Tensor]) -> Tensor:
        """`compute` reads and writes tensors that stay where they are, may run several times, and waits for nothing."""
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
        # By the thread: what another one asks of the GPU meanwhile, such as how much memory is free, spoils nothing.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            result = compute()
        return graph, result
