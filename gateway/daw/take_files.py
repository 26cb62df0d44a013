"""Fetches the files of a take for a session: its audio as WAV at the session's sample rate, its stems and its notes."""

from __future__ import annotations

import asyncio
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import google_crc32c
import numpy as np

from dgx_music.audio.v1.audio_pb2 import FILE_FORMAT_WAV_PCM_24, OutputOptions
from dgx_music.errors import DataLoss
from dgx_music.export.v1.export_pb2 import DownloadRequest, RenderRequest
from dgx_music.gateway.v1 import gateway_pb2_grpc
from dgx_music.generation.v1.generation_pb2 import GetMidiRequest, StemsHeader, StreamStemsRequest
from dgx_music.storage.v1.storage_pb2 import Generation
from export_service.dsp.resampling import Resampler
from gateway.daw.midi_parts import MidiPart, split_midi
from gateway.daw.session_model import AudioFile
from gateway.daw.wav_file import WavInfo, WavWriter, read_wav
from gateway.timeouts import RENDER_TIMEOUT_SECONDS, STREAM_TIMEOUT_SECONDS

FRAMES_PER_BLOCK = 1 << 16


@dataclass(frozen=True)
class Stem:
    """A stem in the session's audio folder."""

    name: str
    audio: AudioFile
    gain_db: float
    """What brings the sum of the stems to the level of the finished file."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields the path of a new file in the same folder, which replaces the one at `path` when the block succeeds."""
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


async def fetch_audio(
    music: gateway_pb2_grpc.MusicServiceAsyncStub, generation: Generation, rate_hz: int, path: Path
) -> WavInfo:
    """Saves the finished file as 24-bit WAV at a sample rate. Returns what its header says; its cues are sections."""
    request = DownloadRequest(generation_id=generation.id)
    fields = generation.metadata.fields
    file_rate = int(fields["file_sample_rate_hz"].number_value) if "file_sample_rate_hz" in fields else 0
    is_wav = "file_format" in fields and fields["file_format"].string_value == "WAV_PCM_24"
    if not (is_wav and file_rate == rate_hz):
        options = OutputOptions(format=FILE_FORMAT_WAV_PCM_24, sample_rate_hz=rate_hz)
        render = await music.Render(
            RenderRequest(generation_id=generation.id, output=options), timeout=RENDER_TIMEOUT_SECONDS
        )
        request.render_id = render.render_id
    call = music.Download(request, timeout=STREAM_TIMEOUT_SECONDS)
    try:
        with replacing(path) as part:
            expected = received = 0
            with open(part, "wb") as file:  # noqa: ASYNC230  # Its writes go to a thread.
                async for response in call:
                    expected = expected or response.file_size_bytes
                    received += len(response.data)
                    await asyncio.to_thread(file.write, response.data)
            if received != expected:
                raise DataLoss(
                    f"received only {received} of {expected} bytes of generation {generation.id}; try again",
                    reason="INCOMPLETE_STREAM",
                )
            return await asyncio.to_thread(read_wav, part)
    finally:
        call.cancel()


async def fetch_midi(music: gateway_pb2_grpc.MusicServiceAsyncStub, generation_id: str) -> tuple[bytes, list[MidiPart]]:
    """Returns the take's MIDI file, and the parts in it."""
    response = await music.GetMidi(GetMidiRequest(generation_id=generation_id), timeout=RENDER_TIMEOUT_SECONDS)
    return response.midi, await asyncio.to_thread(split_midi, response.midi)


async def fetch_stems(
    music: gateway_pb2_grpc.MusicServiceAsyncStub, generation_id: str, rate_hz: int, path_of: Callable[[str], Path]
) -> list[Stem]:
    """Saves the stems as 24-bit WAV files at a sample rate, under the paths that `path_of` gives for their names.

    A stem that exceeds full scale is made quieter, and its gain says by how much.
    """
    call = music.StreamStems(StreamStemsRequest(generation_id=generation_id), timeout=STREAM_TIMEOUT_SECONDS)
    with ExitStack() as stack:
        stack.callback(call.cancel)
        header: StemsHeader | None = None
        spools: list[BinaryIO] = []
        chunks = -1
        count = 0
        async for response in call:
            match response.WhichOneof("message"):
                case "header":
                    header = response.header
                    spools = [stack.enter_context(tempfile.TemporaryFile()) for _ in header.names]
                case "chunk":
                    chunk = response.chunk
                    if google_crc32c.value(chunk.pcm) != chunk.crc32c or not chunk.stem < len(spools):
                        raise DataLoss(
                            f"a chunk of the stems of generation {generation_id} is damaged; try again",
                            reason="INCOMPLETE_STREAM",
                        )
                    await asyncio.to_thread(spools[chunk.stem].write, chunk.pcm)
                    count += 1
                case "end":
                    chunks = response.end.total_chunks
        if header is None or count != chunks:
            raise DataLoss(
                f"the stems of generation {generation_id} are incomplete; try again", reason="INCOMPLETE_STREAM"
            )
        return [
            await asyncio.to_thread(_convert, header, name, spool, rate_hz, path_of(name))
            for name, spool in zip(header.names, spools, strict=True)
        ]


def _convert(header: StemsHeader, name: str, spool: BinaryIO, rate_hz: int, path: Path) -> Stem:
    """Writes a stem from its float samples."""
    peak = max((float(np.abs(block).max(initial=0.0)) for block in _blocks(header, spool, rate_hz)), default=0.0)
    scale = min(1.0, 1.0 / peak) if peak else 1.0
    with replacing(path) as part:
        with WavWriter(part, rate_hz, header.channels) as writer:
            for block in _blocks(header, spool, rate_hz):
                writer.write(block * np.float32(scale))
        frames = writer.frames
    gain_db = header.file_gain_db - 20.0 * float(np.log10(scale))
    return Stem(name, AudioFile(path.name, frames, header.channels), gain_db)


def _blocks(
    header: StemsHeader, spool: BinaryIO, rate_hz: int
) -> Iterator[np.ndarray[tuple[int, int], np.dtype[np.float32]]]:
    spool.seek(0)
    resampler = Resampler(header.sample_rate_hz, header.channels, rate_hz, header.channels)
    while data := spool.read(FRAMES_PER_BLOCK * header.channels * 4):
        yield resampler.feed(np.frombuffer(data, dtype="<f4").reshape(-1, header.channels))
    yield resampler.finish()
