"""Stands for torch.cuda on a machine without a GPU: notes which streams are created and used, and what is captured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch


class CudaGraph:
    """Replays nothing."""

    def replay(self) -> None: ...


class CudaEvent:
    """Has always passed."""

    def __init__(self, **options: Any) -> None: ...

    def record(self) -> None: ...

    def synchronize(self) -> None: ...

    def elapsed_time(self, end: CudaEvent) -> float:
        return 2.0


class CudaCalls:
    """Stands for the parts of torch.cuda that streams and graphs use, and notes the calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.current = "default"
        for name, value in {
            "Stream": self._create,
            "stream": self._use,
            "current_stream": lambda device=None: self.current,
            "graph_pool_handle": lambda: "pool",
            "CUDAGraph": CudaGraph,
            "graph": self._capture,
            "Event": CudaEvent,
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)

    def _create(self, device: Any = None, priority: int = 0) -> Any:
        outer = self

        class Stream:
            def __init__(self) -> None:
                self.device = device

            def wait_stream(self, other: Any) -> None:
                outer.calls.append(("wait for", other))

        self.calls.append(("create", priority))
        return Stream()

    @contextmanager
    def _use(self, stream: Any) -> Iterator[None]:
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    @contextmanager
    def _capture(self, graph: Any, *, stream: Any, capture_error_mode: str, pool: Any = None) -> Iterator[None]:
        self.calls.append(("capture", stream, capture_error_mode))
        yield
