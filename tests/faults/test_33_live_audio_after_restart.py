"""Fault 33: export is restarted after it converted the samples for the file. Who goes on listening to the samples as
generated gets them, at their own sample rate and with their own channels."""

from __future__ import annotations

import signal
from pathlib import Path

import grpc.aio
import numpy as np
import pytest

from dgx_music.audio.v1 import audio_pb2
from tests.support.export_client import RATE_HZ, music, new_id, output_options, run_export_service
from tests.support.export_servers import run_export_process


@pytest.mark.parametrize("is_killed", [False, True], ids=["restarted", "killed after the rename"])
async def test_live_audio_of_a_converted_file(tmp_path: Path, is_killed: bool) -> None:
    generation_id, samples = new_id(), music(0.5)
    output = output_options("FLAC_16", sample_rate_hz=48_000, channels=1)
    if is_killed:
        async with run_export_process(tmp_path, DGX_MUSIC_FAILPOINT="export.after_rename:kill") as (process, client):
            with pytest.raises(grpc.aio.AioRpcError):
                await client.export(generation_id, samples, output=output)
            assert await process.wait() == -signal.SIGKILL
    else:
        async with run_export_service(tmp_path) as client:
            await client.export(generation_id, samples, output=output)
    async with run_export_service(tmp_path) as client:
        listener = await client.listen(generation_id, 100, audio_pb2.AUDIO_LEVEL_LIVE)
        assert (listener.header.sample_rate_hz, listener.header.channels) == (RATE_HZ, 2)
        np.testing.assert_array_equal(await listener.read_rest(), samples[100:])
        file = await client.listen(generation_id, level=audio_pb2.AUDIO_LEVEL_FINAL)
        assert (file.header.sample_rate_hz, file.header.channels) == (48_000, 1)
        await file.read_rest()
