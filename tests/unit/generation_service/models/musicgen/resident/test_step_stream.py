"""The stream of the decode steps, on a machine without CUDA: what it asks torch for."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

from generation_service.models.musicgen.resident.step_graphs import CudaGraphs  # noqa: E402
from generation_service.models.musicgen.resident.step_stream import StepStream, on_step_stream  # noqa: E402
from tests.support.cuda_calls import CudaCalls  # noqa: E402


def test_steps_are_captured_and_launched_on_a_stream_with_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = CudaCalls(monkeypatch)

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
    streams = CudaCalls(monkeypatch)
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
