"""The stream of the decode steps, on a machine without CUDA: what it asks torch for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

from generation_service.models.musicgen.resident.step_graphs import CudaGraphs  # noqa: E402
from generation_service.models.musicgen.resident.step_stream import StepStream, on_step_stream  # noqa: E402


class Streams:
    """Stands for the parts of torch.cuda that streams and graphs use, and notes the calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.current = "default"
        for name, value in {
            "Stream": self._create,
            "stream": self._use,
            "current_stream": lambda device=None: self.current,
            "graph_pool_handle": lambda: "pool",
            "CUDAGraph": lambda: "graph",
            "graph": self._capture,
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)

    def _create(self, device: Any, priority: int) -> Any:
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
        yield
        self.current = before

    @contextmanager
    def _capture(self, graph: Any, *, pool: Any, stream: Any, capture_error_mode: str) -> Iterator[None]:
        self.calls.append(("capture", stream, capture_error_mode))
        yield


def test_steps_are_captured_and_launched_on_a_stream_with_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = Streams(monkeypatch)

    class Generator:
        step_stream = StepStream(torch.device("cuda"))

        @on_step_stream
        def capture(self) -> Any:
            CudaGraphs().capture("shape", lambda: streams.calls.append(("compute", streams.current)))
            return streams.current

    own = Generator().capture()
    assert own is Generator.step_stream._stream
    assert streams.current == "default"
    assert streams.calls == [
        ("create", -1),
        ("compute", own),
        ("compute", own),
        ("capture", own, "thread_local"),
        ("compute", own),
    ]


def test_stream_waits_for_the_caller_and_keeps_what_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = Streams(monkeypatch)
    stream, kept = StepStream(torch.device("cuda")), []

    class Text:
        def record_stream(self, by: Any) -> None:
            kept.append(by)

    stream.follow_caller(Text())  # type: ignore[arg-type]
    assert streams.calls[1:] == [("wait for", "default")]
    assert kept == [stream._stream]


def test_on_the_cpu_it_only_switches_gradients_off() -> None:
    stream = StepStream(torch.device("cpu"))
    stream.follow_caller(torch.zeros(1))
    with stream.use():
        assert torch.is_inference_mode_enabled()
