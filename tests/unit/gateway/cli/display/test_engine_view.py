"""The lines of `dgx-music top`."""

from __future__ import annotations

import pytest

from dgx_music.generation.v1.generation_pb2 import (
    ENGINE_STATE_FAILED,
    ENGINE_STATE_SERVING,
    Engine,
    EngineRequest,
    GetEngineStatusResponse,
)
from dgx_music.storage.v1.storage_pb2 import GENERATION_STAGE_ENCODING_PROMPT, GENERATION_STAGE_GENERATING
from gateway.cli.display.engine_view import status_lines

GIB = 2**30
ID = "0192f0e4-5d6a-7c3e-9a58-3f1b2c4d5e6f"


def status(requests: int = 1) -> GetEngineStatusResponse:
    return GetEngineStatusResponse(
        running=64,
        waiting=3,
        steps_per_second=1830.2,
        audio_seconds_per_second=301.4,
        engines=[
            Engine(
                device="cuda:0",
                device_name="NVIDIA H200",
                state=ENGINE_STATE_SERVING,
                running=64,
                waiting=3,
                max_batch_size=128,
                steps_per_second=1830.2,
                audio_seconds_per_second=301.4,
                kv_reserved_bytes=10 * GIB,
                kv_limit_bytes=40 * GIB,
                memory_used_bytes=45 * GIB,
                memory_total_bytes=140 * GIB,
                temperature_celsius=61,
                power_watts=432.1,
                utilization_percent=97,
                loaded_models=["musicgen-small"],
            ),
            Engine(
                device="cuda:1",
                device_name="NVIDIA GB10",
                state=ENGINE_STATE_FAILED,
                problem="its process failed: it was killed by SIGKILL\x1b[2J",
                restarts=2,
                max_batch_size=128,
                temperature_celsius=48,
            ),
        ],
        requests=[
            EngineRequest(
                generation_id=ID,
                device="cuda:0",
                model_name="musicgen-stereo-medium",
                stage=GENERATION_STAGE_GENERATING,
                frames=16_000 * 25,
                expected_frames=32_000 * 25,
                sample_rate_hz=32_000,
                age_seconds=63.4,
                progress=0.5,
            ),
            *[EngineRequest(device="cuda:0", model_name="tiny", stage=GENERATION_STAGE_ENCODING_PROMPT)]
            * (requests - 1),
        ],
    )


def text(message: GetEngineStatusResponse, width: int = 80, max_lines: int | None = None) -> list[str]:
    return [line.plain for line in status_lines(message, width, max_lines)]


def test_each_engine_has_its_load_and_its_device() -> None:
    assert text(status())[:12] == [
        "1/2 engines serving   64 running   3 waiting   1830.2 steps/s   301.4 audio-s/s",
        "",
        "cuda:0  NVIDIA H200  serving   musicgen-small",
        "  batch   ███████░░░░░░░ 64/128   waiting 3   1830.2 steps/s   301.4 audio-s/s",
        "  KV      ████░░░░░░░░░░ 10.00/40.0 GiB",
        "  memory  ████░░░░░░░░░░ 45.0/140.0 GiB   61 °C   432 W",
        "  busy    ██████████████ 97 %",
        "",
        "cuda:1  NVIDIA GB10  failed   restarts 2",
        "  its process failed: it was killed by SIGKILL\ufffd[2J",
        "  batch   ░░░░░░░░░░░░░░ 0/128   waiting 0   0.0 steps/s   0.0 audio-s/s",
        "",
    ]


def test_requests_have_their_progress() -> None:
    assert text(status(2))[-3:] == [
        "request  engine model                 stage      progress                  age",
        "0192f0e4 cuda:0 musicgen-stereo-medi… generating ██████░░░░░░ 12.5/25 s    1:03",
        "(direct) cuda:0 tiny                  encoding   ░░░░░░░░░░░░ 0.0/0 s      0:00",
    ]
    assert text(status(), width=120)[-1].startswith(f"{ID} cuda:0")


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    assert max(map(len, text(status(3), width))) <= width


def test_requests_that_do_not_fit_are_counted() -> None:
    lines = text(status(100), max_lines=24)
    assert len(lines) == 24
    assert lines[-1] == "and 90 more"
    assert text(status(100), max_lines=5) == text(status(100))[:5]


def test_idle_service_says_so() -> None:
    message = status()
    del message.requests[:]
    assert text(message)[-1] == "no requests"
