"""Failure 35: another attempt replaces a file while a listener opens it. The listener gets the header and the samples
of one attempt or of the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from dgx_music.audio.v1 import audio_pb2
from export_service.streaming import audio_stream
from tests.support.export_client import ExportClient, music, new_id, output_options, run_export_service
from tests.support.tone_model import Gate

OLD, NEW = music(0.3), music(0.5, channels=1, seed=2)


def gate_before(monkeypatch: pytest.MonkeyPatch, step: str) -> Gate:
    gate, original = Gate(), getattr(audio_stream, step)

    def take_later(*arguments: Any) -> Callable[..., Any]:
        gate()
        return original(*arguments)

    monkeypatch.setattr(audio_stream, step, take_later)
    return gate


@pytest.mark.parametrize(("step", "attempt"), [("_open_file", 2), ("read_attempt", 2), ("_open_at", 1)])
@pytest.mark.parametrize("format_", ["WAV_PCM_24", "FLAC_16"])
async def test_listener_gets_one_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, attempt: int, format_: str
) -> None:
    async with run_export_service(tmp_path) as client:
        generation_id = new_id()
        files = {1: await read(client, await client.export(generation_id, OLD))}
        gate = gate_before(monkeypatch, step)
        listening = asyncio.create_task(listen(client, generation_id))
        await gate.reached()
        replaced = await client.export(generation_id, NEW, attempt=2, output=output_options(format_))
        files[2] = await read(client, replaced)
        gate.open()
        header, samples = await listening
    assert (header.attempt, header.channels, header.expected_frames) == (attempt, *files[attempt].shape[::-1])
    np.testing.assert_array_equal(samples, files[attempt])


async def read(client: ExportClient, exported: Any) -> np.ndarray:
    return soundfile.read(client.data_dir / exported.file_path, dtype="float32", always_2d=True)[0]


async def listen(client: ExportClient, generation_id: str) -> tuple[audio_pb2.AudioHeader, np.ndarray]:
    listener = await client.listen(generation_id, level=audio_pb2.AUDIO_LEVEL_FINAL)
    return listener.header, await listener.read_rest()
