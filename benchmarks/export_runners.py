"""What `benchmarks.export` compares: our server, and the other tools, each in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

import imageio_ffmpeg
import numpy as np
import numpy.typing as npt
import soundfile

from dgx_music.audio.v1 import audio_pb2
from dgx_music.channel import connect
from dgx_music.export.v1 import export_pb2, export_pb2_grpc
from dgx_music.pcm import PcmWriter, live_header
from export_service.dsp.measurement import SignalMeter
from tests.support.sketch_clips import RATE_HZ, Clip

CHANNELS = 2
SYNTHETIC_SECONDS = 5
CLIP = Clip("energetic hip hop at 93 BPM in F# minor", "hip hop", 93.0, "F# minor", 5)
CLIP_SECONDS = 30
WARM_UP_SECONDS = 5
CEILING_DBTP = -1.0
TIMEOUT_SECONDS = 600


class Signal(NamedTuple):
    """A signal, which is repeated to the requested length, and what is done to it."""

    hits: float | None
    """How loud the hits of a synthetic signal are; None for music of the `sketch` model."""
    target_lufs: float
    mode: export_pb2.NormalizationMode


SIGNALS = {
    "linear": Signal(0.3, -16.0, export_pb2.NORMALIZATION_MODE_LINEAR),
    "limited": Signal(2.3, -16.0, export_pb2.NORMALIZATION_MODE_LIMITED),
    "music": Signal(None, -12.0, export_pb2.NORMALIZATION_MODE_LIMITED),
}
"""Peak-to-loudness ratios of 11, 17 and 13 LU. Quiet music with hits of noise is what a limiter has most to do on in a
few places, dense music at -12 LUFS what it has to look at everywhere."""

PYLOUDNORM = """
import json, sys, time
import pyloudnorm, soundfile
from benchmarks.librosa_analysis import peak_mb
source, output, target = sys.argv[1:]
pyloudnorm.Meter(48_000).integrated_loudness(soundfile.read(source, stop=48_000)[0])
before_mb, started_at, cpu = peak_mb(), time.perf_counter(), time.process_time()
samples, rate = soundfile.read(source)
loudness = pyloudnorm.Meter(rate, filter_class="DeMan").integrated_loudness(samples)
soundfile.write(output, samples * 10 ** ((float(target) - loudness) / 20), rate, subtype="PCM_24")
print(json.dumps([time.perf_counter() - started_at, time.process_time() - cpu, peak_mb() - before_mb]))
"""


class Figures(NamedTuple):
    """The cost of normalizing one signal."""

    wall_seconds: float
    cpu_seconds: float
    """Of all threads of the process."""
    peak_mb: float


class Server(NamedTuple):
    """A running export service."""

    pid: int
    stub: export_pb2_grpc.ExportServiceAsyncStub
    idle_mb: float
    """Memory after a short export, which loads all libraries."""


@cache
def build_block(path: str) -> npt.NDArray[np.float32]:
    """Builds the signal, float32 [frames, channels]: music, or a swelling chord, a little noise and two hits per
    second.
    """
    hits = SIGNALS[path].hits
    if hits is None:
        return CLIP.samples(CLIP_SECONDS)
    random = np.random.default_rng(5)
    seconds = np.arange(SYNTHETIC_SECONDS * RATE_HZ) / RATE_HZ
    chord = sum(np.sin(2 * np.pi * hz * seconds) for hz in (110.0, 220.0, 277.2, 440.0, 659.3))
    signal = chord[:, None] * 0.05 * (1.2 + np.sin(seconds))[:, None]
    noise = random.standard_normal((len(seconds), CHANNELS))
    bursts = np.clip(noise / 4, -1, 1) * np.exp(-(seconds % 0.5) * 60)[:, None]
    return ((signal + 0.01 * noise + hits * bursts) * 0.3).astype(np.float32)


def iter_pcm(path: str, seconds: int) -> Iterator[bytes]:
    """Yields the signal in blocks of interleaved float32."""
    samples = build_block(path)
    for begin in range(0, seconds * RATE_HZ, len(samples)):
        yield samples[: seconds * RATE_HZ - begin].tobytes()


def write_input(file: Path, path: str, seconds: int) -> None:
    """Writes the signal to a WAV file of float32."""
    with soundfile.SoundFile(file, "w", RATE_HZ, CHANNELS, subtype="FLOAT", format="WAV") as wav:
        for piece in iter_pcm(path, seconds):
            wav.write(np.frombuffer(piece, dtype="<f4").reshape(-1, CHANNELS))


@asynccontextmanager
async def export_server(data_dir: Path, path: str) -> AsyncIterator[Server]:
    """Runs the export service and yields it after a first short export of the signal."""
    with tempfile.TemporaryDirectory() as folder:
        address = f"unix:{folder}/export.sock"
        environment = {
            "DGX_MUSIC_DATA_DIR": str(data_dir),
            "DGX_MUSIC_EXPORT_ADDRESS": address,
            "DGX_MUSIC_SPOOL_KEEP_SECONDS": "0",
            "DGX_MUSIC_LOG_LEVEL": "warning",
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "export_service.rpc.server", env={**os.environ, **environment}
        )
        try:
            async with connect(address) as channel:
                await asyncio.wait_for(channel.channel_ready(), 30)
                server = Server(process.pid, export_pb2_grpc.ExportServiceStub(channel), 0.0)
                await ours(server, path, WARM_UP_SECONDS)
                yield server._replace(idle_mb=_memory_mb(process.pid, "VmRSS"))
        finally:
            with suppress(ProcessLookupError):
                process.terminate()
            await process.wait()


async def ours(server: Server, path: str, seconds: int) -> Figures:
    """Measures one export, from the first message to the response. The file is deleted afterwards."""
    generation_id = str(uuid.uuid4())
    output = audio_pb2.OutputOptions(target_lufs=SIGNALS[path].target_lufs, ceiling_dbtp=CEILING_DBTP)
    header = export_pb2.ExportHeader(
        audio=live_header(generation_id, 1, RATE_HZ, CHANNELS, seconds * RATE_HZ), output=output
    )
    writer = PcmWriter(CHANNELS)
    _reset_peak(server.pid)
    started_at, cpu = time.perf_counter(), _cpu_seconds(server.pid)
    call = server.stub.Export(timeout=TIMEOUT_SECONDS)
    await call.write(export_pb2.ExportRequest(header=header))
    for piece in iter_pcm(path, seconds):
        for chunk in writer.chunks(piece):
            await call.write(export_pb2.ExportRequest(chunk=chunk))
    await call.write(export_pb2.ExportRequest(end=writer.end()))
    await call.done_writing()
    response = await call
    figures = Figures(
        time.perf_counter() - started_at,
        _cpu_seconds(server.pid) - cpu,
        _memory_mb(server.pid, "VmHWM") - server.idle_mb,
    )
    if response.normalization.mode != SIGNALS[path].mode:
        raise RuntimeError(f"the signal was normalized another way: {response.normalization}")
    await server.stub.DeleteFile(export_pb2.DeleteFileRequest(generation_id=generation_id), timeout=TIMEOUT_SECONDS)
    return figures


def pyloudnorm(file: Path, target_lufs: float) -> Figures:
    """Measures pyloudnorm + soundfile."""
    output = file.with_suffix(".normalized.wav")
    command = [sys.executable, "-c", PYLOUDNORM, str(file), str(output), str(target_lufs)]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    output.unlink()
    return Figures(*json.loads(result.stdout))


def ffmpeg(file: Path, target_lufs: float) -> Figures:
    """Measures two passes of ffmpeg's loudnorm, the second with the values that the first has measured."""
    output = file.with_suffix(".normalized.wav")
    loudnorm = f"loudnorm=I={target_lufs}:TP={CEILING_DBTP}"
    started_at, before = time.perf_counter(), os.times()
    first, mb = _ffmpeg(file, f"{loudnorm}:print_format=json", "-f", "null", "-")
    found = json.loads(re.findall(r"\{[^{}]*\}", first)[-1])
    measured = {"I": "input_i", "TP": "input_tp", "LRA": "input_lra", "thresh": "input_thresh"}
    measured_options = "".join(f":measured_{name}={found[key]}" for name, key in measured.items())
    _, second_mb = _ffmpeg(
        file,
        f"{loudnorm}{measured_options}:offset={found['target_offset']}",
        "-ar",
        str(RATE_HZ),
        "-c:a",
        "pcm_s24le",
        str(output),
    )
    seconds, after = time.perf_counter() - started_at, os.times()
    output.unlink()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Figures(seconds, cpu, max(mb, second_mb))


def meter_speeds(seconds: int, rounds: int) -> tuple[float, float]:
    """Measures our loudness meter and libebur128's, in turns. Returns their speeds as multiples of real time."""
    import pyebur128

    flags = pyebur128.MeasurementMode
    everything = flags.MODE_I | flags.MODE_S | flags.MODE_LRA | flags.MODE_TRUE_PEAK
    samples = build_block("limited")
    blocks = range(seconds // SYNTHETIC_SECONDS)
    times: tuple[list[float], list[float]] = [], []
    for _ in range(rounds):
        started_at = time.process_time()
        measurement = SignalMeter(RATE_HZ, CHANNELS)
        for _ in blocks:
            measurement.feed(samples)
        measurement.finish()
        times[0].append(time.process_time() - started_at)
        started_at = time.process_time()
        state = pyebur128.R128State(CHANNELS, RATE_HZ, everything)
        for _ in blocks:
            state.add_frames(samples.ravel(), len(samples))
        pyebur128.get_loudness_global(state), pyebur128.get_true_peak(state, 0), pyebur128.get_loudness_range(state)
        times[1].append(time.process_time() - started_at)
    return seconds / statistics.median(times[0]), seconds / statistics.median(times[1])


def _ffmpeg(file: Path, filters: str, *output: str) -> tuple[str, float]:
    """Runs ffmpeg. Returns its standard error and its peak memory in MB."""
    options = ["-nostdin", "-hide_banner", "-benchmark", "-y"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), *options, "-i", str(file), "-af", filters, *output]
    stderr = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    return stderr, int(re.findall(r"maxrss=(\d+)", stderr)[-1]) / 1024


def _reset_peak(pid: int) -> None:
    """Makes the kernel count peak memory from now on."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _memory_mb(pid: int, name: str) -> float:
    return int(re.findall(rf"{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[0]) / 1024


def _cpu_seconds(pid: int) -> float:
    """Returns the user and system time of all threads of the process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
