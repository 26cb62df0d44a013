"""How long the main job takes, as a user sees it: `make bench`.

Each figure is the median of several runs of the real thing, beside the limit that it has to keep, as a Markdown table.
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
LISTENED_SECONDS = 60.0
"""Length of the generation whose first audio is waited for."""


def median(measure: Callable[[], float]) -> float:
    """Median of several runs, after one that warms up."""
    measure()
    return statistics.median(measure() for _ in range(RUNS))


def command_seconds(*arguments: str) -> float:
    """Wall time of one `dgx-music` command, from the shell's view."""
    began = time.perf_counter()
    subprocess.run([COMMAND, *arguments], check=True, capture_output=True)
    return time.perf_counter() - began


def sketch_times_real_time() -> float:
    """Seconds of audio that `sketch` makes a second, on one thread."""
    model = Sketch()
    frames = round(LISTENED_SECONDS * model.info.sample_rate_hz)
    began = time.perf_counter()
    state = model.prefill(GenerationParameters(prompt=PROMPT, frames=frames, seed=1))
    made = 0
    while made < frames:
        made += len(model.step([state])[0])
    return LISTENED_SECONDS / (time.perf_counter() - began)


async def first_audio(address: str) -> tuple[float, float]:
    """Seconds from create to the first audio at a listener, and to COMPLETED."""
    async with connect(address) as music:
        began = time.perf_counter()
        request = CreateGenerationRequest(prompt=PROMPT, duration_seconds=LISTENED_SECONDS)
        created = (await music.CreateGeneration(request, timeout=10)).generation
        async for part in music.StreamAudio(StreamAudioRequest(generation_id=created.id), timeout=60):
            if part.HasField("chunk"):
                break
        heard = time.perf_counter() - began
        async for _ in music.WatchGeneration(WatchGenerationRequest(id=created.id), timeout=60):
            pass
        return heard, time.perf_counter() - began


@asynccontextmanager
async def served(data_dir: Path) -> AsyncIterator[str]:
    """A running `dgx-music serve`; gives its Unix socket's address."""
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
                raise RuntimeError("dgx-music serve ended before it served")
        yield f"unix:{data_dir}/run/gateway.sock"
    finally:
        process.terminate()
        await process.communicate()


async def heard_medians(data_dir: Path) -> tuple[float, float]:
    async with served(data_dir) as address:
        await first_audio(address)
        times = [await first_audio(address) for _ in range(RUNS)]
    return statistics.median(time[0] for time in times), statistics.median(time[1] for time in times)


def main() -> None:
    """Measures and prints."""
    with tempfile.TemporaryDirectory() as folder:
        data_dir = ["--data-dir", folder]
        help_seconds = median(lambda: command_seconds("--help"))
        generate_seconds = median(lambda: command_seconds(*data_dir, "generate", PROMPT, "--duration", "16"))
        list_seconds = median(lambda: command_seconds(*data_dir, "list"))
    with tempfile.TemporaryDirectory() as folder:
        heard, completed = asyncio.run(heard_medians(Path(folder)))
    rows = [
        ("`dgx-music --help`", f"{help_seconds:.2f} s", "0.5 s"),
        ("`dgx-music generate`, 16 s, embedded", f"{generate_seconds:.2f} s", "6 s"),
        ("`dgx-music list`, embedded", f"{list_seconds:.2f} s", ""),
        (f"First audio of {LISTENED_SECONDS:g} s at a listener, from create", f"{heard:.3f} s", "0.5 s"),
        ("The same, from create to COMPLETED", f"{completed:.2f} s, {LISTENED_SECONDS / completed:.0f}× real time", ""),
        ("`sketch` alone, one thread", f"{median(sketch_times_real_time):.0f}× real time", "100×"),
    ]
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}; medians of {RUNS}\n")
    print("| What | Measured | Limit |\n| --- | --- | --- |")
    for row in rows:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
