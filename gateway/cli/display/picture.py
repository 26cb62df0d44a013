"""A generation as a PNG: waveform, short-term loudness and spectrogram, of what the services say of it."""

from __future__ import annotations

import asyncio
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dgx_music.audio.v1.audio_pb2 import AUDIO_LEVEL_FINAL
from dgx_music.export.v1.export_pb2 import GetWaveformRequest, GetWaveformResponse, StreamAudioRequest
from dgx_music.pcm import BYTES_PER_SAMPLE, PcmReader
from dgx_music.storage.v1.storage_pb2 import Generation
from export_service.dsp.arrays import FloatArray
from export_service.dsp.loudness import SHORT_TERM_HOPS, LoudnessMeter
from gateway.cli.display.console import short
from gateway.cli.display.spectrogram import ROWS, Samples, Spectrogram
from gateway.cli.session.command_errors import CommandError
from gateway.cli.session.output_files import require_writable
from gateway.cli.session.runner import CALL_SECONDS, STREAM_SECONDS, Session
from service_runtime.audio.block_size import BLOCK_FRAMES
from service_runtime.optional_deps import install_extra_command

POINTS = 1200
INCHES, DOTS_PER_INCH = (12.8, 9.6), 100
TITLE_CHARACTERS = 110
OCTAVES_HZ = 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000
QUIETEST_DB, LOUDEST_DB = -100.0, 0.0
LOWEST_LUFS = -60.0


@dataclass(frozen=True)
class Drawn:
    """What a picture is made of."""

    waveform: GetWaveformResponse
    short_term_lufs: FloatArray
    """One each 100 ms from 3 s on."""
    spectrogram: Spectrogram
    seconds: float


def require_drawable(path: Path, *, overwrite: bool) -> None:
    """Raises CommandError where the picture could not be made, before any work is done for it."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise CommandError(
            f"--png needs matplotlib, which is not installed here; {install_extra_command('pictures')}"
        ) from error
    require_writable([path], "--png", overwrite=overwrite)


async def draw(session: Session, generation: Generation, path: Path) -> Path:
    """Writes the picture of a completed generation; gives where. Raises CommandError where that can't be written."""
    drawn = await _gather(session, generation.id)
    try:
        return await asyncio.to_thread(_write, generation, drawn, path)
    except OSError as error:
        raise CommandError(f"can't write {path}: {error.strerror or error}") from error


async def _gather(session: Session, generation_id: str) -> Drawn:
    waveform = await session.music.GetWaveform(
        GetWaveformRequest(generation_id=generation_id, points=POINTS), timeout=CALL_SECONDS
    )
    request = StreamAudioRequest(generation_id=generation_id, level=AUDIO_LEVEL_FINAL)
    call = session.music.StreamAudio(request, timeout=STREAM_SECONDS)
    try:
        responses = aiter(call)
        header = (await anext(responses)).header
        reader = PcmReader(header)
        meter = LoudnessMeter(header.sample_rate_hz, header.channels)
        spectrogram = Spectrogram(header.sample_rate_hz, header.channels, header.expected_frames)

        def feed(samples: Samples) -> None:
            meter.feed(samples)
            spectrogram.feed(samples)

        waiting = b""
        async for response in responses:
            if response.WhichOneof("part") == "end":
                reader.finish(response.end)
                break
            waiting += reader.accept(response.chunk)
            if len(waiting) >= BLOCK_FRAMES * header.channels * BYTES_PER_SAMPLE:
                await asyncio.to_thread(feed, _samples(waiting, header.channels))
                waiting = b""
        await asyncio.to_thread(feed, _samples(waiting, header.channels))
    finally:
        call.cancel()
    return Drawn(waveform, meter.short_term(), spectrogram, reader.frames / header.sample_rate_hz)


def _samples(pcm: bytes, channels: int) -> Samples:
    return np.frombuffer(pcm, dtype="<f4").reshape(-1, channels)


def _write(generation: Generation, drawn: Drawn, path: Path) -> Path:
    # Without pyplot: no display, and nothing that outlives the picture.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(INCHES, DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)  # What savefig draws by.
    outline, loudness, spectrum = figure.subplots(3, 1, sharex=True, height_ratios=(2, 2, 3))
    prompt = short(" ".join(generation.prompt.split()), TITLE_CHARACTERS)
    figure.suptitle(f"{prompt}\n{generation.id}", fontsize=11, parse_math=False)

    data = np.array(drawn.waveform.data).reshape(-1, 2) / 128
    times = np.arange(len(data)) * drawn.waveform.samples_per_pixel / drawn.waveform.sample_rate
    outline.fill_between(times, data[:, 0], data[:, 1], step="post", linewidth=0.3)
    outline.set(ylim=(-1, 1), ylabel="amplitude")

    ends = (np.arange(len(drawn.short_term_lufs)) + SHORT_TERM_HOPS) / 10
    loudness.plot(ends, np.maximum(drawn.short_term_lufs, LOWEST_LUFS), label="short-term (3 s)")
    if "integrated_lufs" in generation.metadata.fields:
        integrated = generation.metadata.fields["integrated_lufs"].number_value
        loudness.axhline(integrated, color="C1", linestyle="--", label=f"integrated {integrated:.1f} LUFS")
    if loudness.get_legend_handles_labels()[0]:
        loudness.legend(loc="lower right")
    loudness.set(ylabel="loudness (LUFS)")
    loudness.grid(alpha=0.3)

    image = spectrum.imshow(
        np.maximum(drawn.spectrogram.decibels(), QUIETEST_DB),
        origin="lower",
        aspect="auto",
        extent=(0, drawn.seconds, 0, ROWS),
        vmin=QUIETEST_DB,
        vmax=LOUDEST_DB,
        cmap="magma",
    )
    marks = [hertz for hertz in OCTAVES_HZ if drawn.spectrogram.row_of(hertz) <= ROWS]
    spectrum.set_yticks([drawn.spectrogram.row_of(hertz) for hertz in marks], [f"{hertz:,}" for hertz in marks])
    spectrum.set(ylabel="frequency (Hz)", xlabel="time (s)", xlim=(0, drawn.seconds))
    figure.colorbar(image, ax=spectrum, label="dBFS", pad=0.01)

    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # A prompt may have letters that the font has not.
            figure.savefig(part, format="png")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path.absolute()
