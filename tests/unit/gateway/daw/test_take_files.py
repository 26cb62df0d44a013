"""Stems as they arrive."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import google_crc32c
import grpc.aio
import numpy as np
import pytest
import soundfile

from dgx_music.errors import DataLoss
from dgx_music.gateway.v1 import gateway_pb2_grpc
from dgx_music.generation.v1.generation_pb2 import (
    StemChunk,
    StemsEnd,
    StemsHeader,
    StreamStemsRequest,
    StreamStemsResponse,
)
from gateway.daw.take_files import fetch_stems

ID = "00000000-0000-4000-8000-000000000000"


class Stems(gateway_pb2_grpc.MusicServiceServicer):
    """Streams the stems "loud", at twice full scale, and "quiet", and may end too early."""

    def __init__(self, is_complete: bool) -> None:
        self._is_complete = is_complete

    async def StreamStems(self, request: StreamStemsRequest, context: object) -> AsyncIterator[StreamStemsResponse]:
        header = StemsHeader(names=["loud", "quiet"], sample_rate_hz=32_000, channels=2, total_frames=64_000)
        yield StreamStemsResponse(header=header)
        tone = np.sin(2 * np.pi * 440.0 * np.arange(64_000) / 32_000)
        for start in range(0, 64_000, 8_000):
            for stem, level in enumerate((2.0, 0.5)):
                pcm = np.repeat(level * tone[start : start + 8_000, None], 2, axis=1).astype("<f4").tobytes()
                chunk = StemChunk(stem=stem, start_frame=start, pcm=pcm, crc32c=google_crc32c.value(pcm))
                yield StreamStemsResponse(chunk=chunk)
        if self._is_complete:
            yield StreamStemsResponse(end=StemsEnd(total_chunks=16))


@asynccontextmanager
async def music_with(stems: Stems) -> AsyncIterator[gateway_pb2_grpc.MusicServiceAsyncStub]:
    server = grpc.aio.server()
    gateway_pb2_grpc.add_MusicServiceServicer_to_server(stems, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield gateway_pb2_grpc.MusicServiceStub(channel)
    await server.stop(None)


async def test_stem_beyond_full_scale_is_made_quieter_and_its_gain_makes_up_for_it(tmp_path: Path) -> None:
    shares: list[float] = []
    async with music_with(Stems(is_complete=True)) as music:
        stems = await fetch_stems(music, ID, 48_000, lambda name: tmp_path / f"{name}.wav", shares.append)
    assert [stem.gain_db for stem in stems] == pytest.approx([6.02, 0.0], abs=0.02)
    assert [stem.audio.frames for stem in stems] == [96_000, 96_000]
    for name, peak in (("loud", 1.0), ("quiet", 0.5)):
        samples, rate = soundfile.read(tmp_path / f"{name}.wav")
        assert (rate, samples.shape) == (48_000, (96_000, 2))
        assert np.abs(samples).max() == pytest.approx(peak, abs=0.002)
        # The middle is one clean tone: nothing was clipped.
        spectrum = np.abs(np.fft.rfft(samples[24_000:72_000, 0] * np.hanning(48_000)))
        spectrum[430:451] = 0.0
        assert spectrum.max() < 0.001 * 12_000 * peak
    assert shares == sorted(shares)
    assert 0.8 < shares[-1] <= 1.0
    assert {path.name for path in tmp_path.iterdir()} == {"loud.wav", "quiet.wav"}


async def test_incomplete_stems_leave_nothing_behind(tmp_path: Path) -> None:
    async with music_with(Stems(is_complete=False)) as music:
        with pytest.raises(DataLoss, match="incomplete"):
            await fetch_stems(music, ID, 48_000, lambda name: tmp_path / f"{name}.wav")
    assert not list(tmp_path.iterdir())
