"""A picture (PNG) of a generation: its waveform, short-term loudness and spectrogram."""

from __future__ import annotations

import asyncio
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dgx_music.audio.v1.audio_pb2 import AUDIO_LEVEL_FINAL
from dgx_music.client.waveform_drawing import Waveform
from dgx_music.export.v1.export_pb2 import GetWaveformRequest, StreamAudioRequest
from dgx_music.pcm import BYTES_PER_SAMPLE, PcmReader
from dgx_music.storage.v1.storage_pb2 import Generation
from export_service.dsp.arrays import FloatArray
from export_service.dsp.loudness import SHORT_TERM_HOPS
from export_service.dsp.measurement import SignalMeter
from gateway.cli.display.console import truncate
from gateway.cli.display.spectrogram import ROWS, Samples, Spectrogram
from gateway.cli.session.command_errors import BAD_INPUT, CommandError
from gateway.cli.session.files.output_files import require_writable
from gateway.cli.session.runner import Session
from gateway.file_replacement import replacing
from gateway.timeouts import CALL_TIMEOUT_SECONDS, STREAM_TIMEOUT_SECONDS
from service_runtime.audio.block_size import BLOCK_FRAMES
from service_runtime.optional_deps import install_extra_command

WAVEFORM_POINTS = 1200
INCHES, DPI = (12.8, 9.6), 100
MAX_TITLE_CHARACTERS = 110
TICKS_HZ = 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000
MIN_DBFS, MAX_DBFS = -100.0, 0.0
MIN_LUFS = -60.0


@dataclass(frozen=True)
class PictureData:
    """The data shown in a picture."""

    waveform: Waveform
    short_term_lufs: FloatArray
    """One value every 100 ms, the first at 3 s."""
    spectrogram: Spectrogram
    seconds: float


def require_drawable(path: Path, *, overwrite: bool) -> None:
    """Raises CommandError, before any work is done, if matplotlib is missing or the path cannot be written or does not
    end in .png."""
    if path.suffix.lower() != ".png":
        raise CommandError(f"--png: {path} does not end in .png, the only format of pictures", BAD_INPUT)
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise CommandError(
            f"--png requires matplotlib, which is not installed; run {install_extra_command('pictures')}"
        ) from error
    require_writable([path], "--png", overwrite=overwrite)


async def write_picture(session: Session, generation: Generation, path: Path) -> Path:
    """Writes the picture of a completed generation and returns its absolute path. Raises CommandError if it cannot be
    written."""
    data = await _collect(session, generation.id)
    try:
        return await asyncio.to_thread(_render, generation, data, path)
    except OSError as error:
        raise CommandError(f"failed to write {path}: {error.strerror or error}") from error


async def _collect(session: Session, generation_id: str) -> PictureData:
    peaks = await session.music.GetWaveform(
        GetWaveformRequest(generation_id=generation_id, points=WAVEFORM_POINTS), timeout=CALL_TIMEOUT_SECONDS
    )
    waveform = Waveform.from_message(peaks)
    request = StreamAudioRequest(generation_id=generation_id, level=AUDIO_LEVEL_FINAL)
    call = session.music.StreamAudio(request, timeout=STREAM_TIMEOUT_SECONDS)
    try:
        responses = aiter(call)
        header = (await anext(responses)).header
        reader = PcmReader(header)
        meter = SignalMeter(header.sample_rate_hz, header.channels)
        spectrogram = Spectrogram(header.sample_rate_hz, header.channels, header.expected_frames)

        def feed(samples: Samples) -> None:
            meter.feed(samples)
            spectrogram.feed(samples)

        pending = b""
        async for response in responses:
            if response.WhichOneof("part") == "end":
                reader.finish(response.end)
                break
            pending += reader.accept(response.chunk)
            if len(pending) >= BLOCK_FRAMES * header.channels * BYTES_PER_SAMPLE:
                await asyncio.to_thread(feed, _samples(pending, header.channels))
                pending = b""
        await asyncio.to_thread(feed, _samples(pending, header.channels))
        await asyncio.to_thread(meter.finish)
    finally:
        call.cancel()
    return PictureData(waveform, meter.loudness.short_term(), spectrogram, reader.frames / header.sample_rate_hz)


def _samples(pcm: bytes, channels: int) -> Samples:
    return np.frombuffer(pcm, dtype="<f4").reshape(-1, channels)


def _render(generation: Generation, data: PictureData, path: Path) -> Path:
    # pyplot would need a display and keep state beyond this picture.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(INCHES, DPI, layout="constrained")
    FigureCanvasAgg(figure)  # savefig draws with this canvas.
    waveform, loudness, spectrum = figure.subplots(3, 1, sharex=True, height_ratios=(2, 2, 3))
    prompt = truncate(" ".join(generation.prompt.split()), MAX_TITLE_CHARACTERS)
    figure.suptitle(f"{prompt}\n{generation.id}", fontsize=11, parse_math=False)

    times = np.arange(len(data.waveform.minima)) * data.waveform.seconds_per_point
    waveform.fill_between(times, data.waveform.minima, data.waveform.maxima, step="post", linewidth=0.3)
    waveform.set(ylim=(-1, 1), ylabel="amplitude")

    ends = (np.arange(len(data.short_term_lufs)) + SHORT_TERM_HOPS) / 10
    loudness.plot(ends, np.maximum(data.short_term_lufs, MIN_LUFS), label="short-term (3 s)")
    if "integrated_lufs" in generation.metadata.fields:
        integrated = generation.metadata.fields["integrated_lufs"].number_value
        loudness.axhline(integrated, color="C1", linestyle="--", label=f"integrated {integrated:.1f} LUFS")
    if loudness.get_legend_handles_labels()[0]:
        loudness.legend(loc="lower right")
    loudness.set(ylabel="loudness (LUFS)")
    loudness.grid(alpha=0.3)

    image = spectrum.imshow(
        np.maximum(data.spectrogram.decibels(), MIN_DBFS),
        origin="lower",
        aspect="auto",
        extent=(0, data.seconds, 0, ROWS),
        vmin=MIN_DBFS,
        vmax=MAX_DBFS,
        cmap="magma",
    )
    ticks = [hertz for hertz in TICKS_HZ if data.spectrogram.row_at(hertz) <= ROWS]
    spectrum.set_yticks([data.spectrogram.row_at(hertz) for hertz in ticks], [f"{hertz:,}" for hertz in ticks])
    spectrum.set(ylabel="frequency (Hz)", xlabel="time (s)", xlim=(0, data.seconds))
    figure.colorbar(image, ax=spectrum, label="dBFS", pad=0.01)

    with replacing(path) as part, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # The font may lack characters of the prompt.
        figure.savefig(part, format="png")
    return path.absolute()
