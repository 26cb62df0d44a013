"""Measures how long the main job takes for a user: `make bench`.

Each figure is the median of several runs of the real commands. Prints a Markdown table with the limit of each.
"""

from __future__ import annotations

import asyncio
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from dgx_music.client import connect
from dgx_music.export.v1.export_pb2 import StreamAudioRequest
from dgx_music.storage.v1.storage_pb2 import CreateGenerationRequest, WatchGenerationRequest
from generation_service.models.base import GenerationParameters
from generation_service.models.sketch import Sketch

COMMAND = Path(sys.executable).with_name("dgx-music")
PROMPT = "house at 124 BPM in F minor with piano"
RUNS = 5
AUDIO_SECONDS = 60.0
"""Duration of the generation that is listened to."""


def median(measure: Callable[[], float]) -> float:
    """Returns the median of several runs, after a warm-up run."""
    measure()
    return statistics.median(measure() for _ in range(RUNS))


def command_seconds(*arguments: str) -> float:
    """Measures the wall time of one `dgx-music` command."""
    started_at = time.perf_counter()
    subprocess.run([COMMAND, *arguments], check=True, capture_output=True)
    return time.perf_counter() - started_at


def sketch_times_real_time() -> float:
    """Measures how many seconds of audio `sketch` generates per second on one thread."""
    model = Sketch()
    frames = round(AUDIO_SECONDS * model.info.sample_rate_hz)
    started_at = time.perf_counter()
    state = model.prefill(GenerationParameters(prompt=PROMPT, frames=frames, seed=1))
    produced_frames = 0
    while produced_frames < frames:
        produced_frames += len(model.step([state])[0])
    return AUDIO_SECONDS / (time.perf_counter() - started_at)


async def first_audio(address: str) -> tuple[float, float]:
    """Measures the seconds from create to the first audio at a listener, and to COMPLETED."""
    async with connect(address) as music:
        started_at = time.perf_counter()
        request = CreateGenerationRequest(prompt=PROMPT, duration_seconds=AUDIO_SECONDS)
        created = (await music.CreateGeneration(request, timeout=10)).generation
        async for part in music.StreamAudio(StreamAudioRequest(generation_id=created.id), timeout=60):
            if part.HasField("chunk"):
                break
        first_seconds = time.perf_counter() - started_at
        async for _ in music.WatchGeneration(WatchGenerationRequest(id=created.id), timeout=60):
            pass
        return first_seconds, time.perf_counter() - started_at


@asynccontextmanager
async def run_server(data_dir: Path) -> AsyncIterator[str]:
    """Runs `dgx-music serve` and yields the address of its Unix socket."""
    process = await asyncio.create_subprocess_exec(
        COMMAND,
        "serve",
        env={**os.environ, "DGX_MUSIC_DATA_DIR": str(data_dir), "DGX_MUSIC_GATEWAY_ADDRESS": "127.0.0.1:0"},
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        while b'"serving"' not in await process.stderr.readline():
            if process.stderr.at_eof():
                raise RuntimeError("dgx-music serve exited before it was serving")
        yield f"unix:{data_dir}/run/gateway.sock"
    finally:
        process.terminate()
        await process.communicate()


async def first_audio_medians(data_dir: Path) -> tuple[float, float]:
    """Returns the medians of `first_audio` over several runs, after a warm-up run."""
    async with run_server(data_dir) as address:
        await first_audio(address)
        times = [await first_audio(address) for _ in range(RUNS)]
    return statistics.median(time[0] for time in times), statistics.median(time[1] for time in times)


def main() -> None:
    """Measures everything and prints it."""
    with tempfile.TemporaryDirectory() as folder:
        data_dir = ["--data-dir", folder]
        help_seconds = median(lambda: command_seconds("--help"))
        generate_seconds = median(lambda: command_seconds(*data_dir, "generate", PROMPT, "--duration", "16"))
        list_seconds = median(lambda: command_seconds(*data_dir, "history"))
    with tempfile.TemporaryDirectory() as folder:
        first_seconds, completed_seconds = asyncio.run(first_audio_medians(Path(folder)))
    rows = [
        ("`dgx-music --help`", f"{help_seconds:.2f} s", "0.5 s"),
        ("`dgx-music generate`, 16 s, embedded", f"{generate_seconds:.2f} s", "6 s"),
        ("`dgx-music history`, embedded", f"{list_seconds:.2f} s", ""),
        (f"First audio of {AUDIO_SECONDS:g} s at a listener, from create", f"{first_seconds:.3f} s", "0.5 s"),
        (
            "The same, from create to COMPLETED",
            f"{completed_seconds:.2f} s, {AUDIO_SECONDS / completed_seconds:.0f}× real time",
            "",
        ),
        ("`sketch` alone, one thread", f"{median(sketch_times_real_time):.0f}× real time", "20×"),
    ]
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}; medians of {RUNS}\n")
    print("| What | Measured | Limit |\n| --- | --- | --- |")
    for row in rows:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
