"""Fetches the files of a take for a session: its audio as WAV at the session's sample rate, its stems and its notes."""

from __future__ import annotations

import asyncio
import os
import secrets
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import google_crc32c
import numpy as np

from dgx_music.audio.v1.audio_pb2 import FILE_FORMAT_WAV_PCM_24, OutputOptions
from dgx_music.errors import DataLoss
from dgx_music.export.v1.export_pb2 import DownloadRequest, RenderRequest
from dgx_music.gateway.v1 import gateway_pb2_grpc
from dgx_music.generation.v1.generation_pb2 import GetMidiRequest, StemsHeader, StreamStemsRequest
from dgx_music.storage.v1.storage_pb2 import Generation
from export_service.dsp.arrays import Samples
from export_service.dsp.resampling import Resampler
from gateway.daw.midi_parts import MidiPart, split_midi
from gateway.daw.session_model import AudioFile
from gateway.daw.wav_file import WavInfo, WavWriter, read_wav
from gateway.file_replacement import replacing
from gateway.timeouts import RENDER_TIMEOUT_SECONDS, STREAM_TIMEOUT_SECONDS

FRAMES_PER_BLOCK = 1 << 16


@dataclass(frozen=True)
class Stem:
    """A stem in the session's audio folder."""

    name: str
    audio: AudioFile
    gain_db: float
    """What brings the sum of the stems to the level of the finished file."""


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
    music: gateway_pb2_grpc.MusicServiceAsyncStub,
    generation_id: str,
    rate_hz: int,
    path_of: Callable[[str], Path],
    advance: Callable[[float], None] = lambda share: None,
) -> list[Stem]:
    """Saves the stems as 24-bit WAV files at a sample rate, under the paths that `path_of` gives for their names.

    A stem that exceeds full scale is made quieter, and its gain says by how much. `advance` gets the share
    that is done.
    """
    call = music.StreamStems(StreamStemsRequest(generation_id=generation_id), timeout=STREAM_TIMEOUT_SECONDS)
    with ExitStack() as stack:
        stack.callback(call.cancel)
        header: StemsHeader | None = None
        stems: list[_StemFile] = []
        chunks = -1
        count = 0
        async for response in call:
            match response.WhichOneof("message"):
                case "header":
                    header = response.header
                    stems = [
                        stack.enter_context(_StemFile(header, name, rate_hz, path_of(name))) for name in header.names
                    ]
                case "chunk":
                    chunk = response.chunk
                    if google_crc32c.value(chunk.pcm) != chunk.crc32c or not chunk.stem < len(stems):
                        raise DataLoss(
                            f"a chunk of the stems of generation {generation_id} is damaged; try again",
                            reason="INCOMPLETE_STREAM",
                        )
                    # The next chunks arrive while this one is resampled.
                    await asyncio.to_thread(stems[chunk.stem].add, chunk.pcm)
                    count += 1
                    if header is not None and header.total_frames and chunk.stem == 0:
                        advance(min(1.0, chunk.start_frame / header.total_frames))
                case "end":
                    chunks = response.end.total_chunks
        if header is None or count != chunks:
            raise DataLoss(
                f"the stems of generation {generation_id} are incomplete; try again", reason="INCOMPLETE_STREAM"
            )
        return [await asyncio.to_thread(stem.finish) for stem in stems]


class _StemFile:
    """Writes a stem as it arrives. If it exceeds full scale, which its end shows, it is written again, quieter."""

    def __init__(self, header: StemsHeader, name: str, rate_hz: int, path: Path) -> None:
        self._header, self._name, self._rate_hz, self._path = header, name, rate_hz, path
        self._part = path.with_name(f".{secrets.token_hex(8)}.part")
        self._resampler = self._new_resampler()
        self._peak = 0.0

    def __enter__(self) -> Self:
        # Beside the file, because the system's temporary folder may be small.
        self._spool = tempfile.TemporaryFile(dir=self._path.parent)
        self._writer = WavWriter(self._part, self._rate_hz, self._header.channels)
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(OSError):  # Of the header of an incomplete file, on a full disk; the first error is raised.
            self._writer.close()
        self._spool.close()
        self._part.unlink(missing_ok=True)

    def add(self, pcm: bytes) -> None:
        """Adds float samples."""
        self._spool.write(pcm)
        self._write(self._resampler.feed(self._samples(pcm)))

    def finish(self) -> Stem:
        """Completes the file and gives it its name."""
        self._write(self._resampler.finish())
        self._writer.close()
        scale = 1.0 / self._peak if self._peak > 1.0 else 1.0
        if scale < 1.0:
            self._write_again(np.float32(scale))
        os.replace(self._part, self._path)
        gain_db = self._header.file_gain_db - 20.0 * float(np.log10(scale))
        return Stem(self._name, AudioFile(self._path.name, self._writer.frames, self._header.channels), gain_db)

    def _write(self, samples: Samples) -> None:
        self._peak = max(self._peak, float(samples.max(initial=0.0)), -float(samples.min(initial=0.0)))
        self._writer.write(samples)

    def _write_again(self, scale: np.float32) -> None:
        self._spool.seek(0)
        resampler = self._new_resampler()
        with WavWriter(self._part, self._rate_hz, self._header.channels) as writer:
            while data := self._spool.read(FRAMES_PER_BLOCK * self._header.channels * 4):
                writer.write(resampler.feed(self._samples(data)) * scale)
            writer.write(resampler.finish() * scale)

    def _samples(self, pcm: bytes) -> Samples:
        return np.frombuffer(pcm, dtype="<f4").reshape(-1, self._header.channels)

    def _new_resampler(self) -> Resampler:
        return Resampler(self._header.sample_rate_hz, self._header.channels, self._rate_hz, self._header.channels)
