"""Fault 32: files of the library were damaged on the disk. Who asks for one is told so, and nobody else notices: the
service starts, and serves every other file."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from dgx_music.audio.v1 import audio_pb2
from dgx_music.export.v1 import export_pb2
from tests.support.export_client import (
    RATE_HZ,
    TIMEOUT_SECONDS,
    ExportClient,
    music,
    new_id,
    output_options,
    raises_rpc_error,
    run_export_service,
)
from tests.support.failpoints import armed

pytestmark = pytest.mark.slow


def no_longer_audio(path: Path) -> None:
    path.write_bytes(b"RIFF and nothing else")


def samples_that_are_not_finite(path: Path) -> None:
    content = bytearray(path.read_bytes())
    start = content.index(b"data") + 8
    content[start + 4000 : start + 4004] = np.float32(np.nan).tobytes()
    path.write_bytes(content)


def damaged_frames(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-4000:-2000] = bytes(2000)
    path.write_bytes(content)


def no_samples(path: Path) -> None:
    soundfile.write(path, np.zeros((0, 2)), RATE_HZ, format="WAV")


DAMAGES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "no longer audio": ("WAV_PCM_24", no_longer_audio),
    "a sample that is not finite": ("WAV_FLOAT", samples_that_are_not_finite),
    "damaged FLAC frames": ("FLAC_24", damaged_frames),
    "an MPEG-4 file cut off": ("M4A_AAC", lambda path: path.write_bytes(path.read_bytes()[:-3000])),
    "Ogg pages overwritten": ("OGG_OPUS", damaged_frames),
    "no samples": ("WAV_PCM_16", no_samples),
}
"""What happened to the file → its format, and a function that does it."""


def readers(client: ExportClient, generation_id: str) -> dict[str, Callable[[], Awaitable[object]]]:
    render = export_pb2.RenderRequest(generation_id=generation_id, output=output_options("FLAC_16"))
    waveform = export_pb2.GetWaveformRequest(generation_id=generation_id)
    grid = export_pb2.GetBeatGridRequest(generation_id=generation_id)
    curve = export_pb2.GetLoudnessCurveRequest(generation_id=generation_id)
    return {
        "StreamAudio": lambda: client.read_audio(generation_id, level=audio_pb2.AUDIO_LEVEL_FINAL),
        "GetWaveform": lambda: client.stub.GetWaveform(waveform, timeout=TIMEOUT_SECONDS),
        "GetBeatGrid": lambda: client.stub.GetBeatGrid(grid, timeout=TIMEOUT_SECONDS),
        "GetLoudnessCurve": lambda: client.stub.GetLoudnessCurve(curve, timeout=TIMEOUT_SECONDS),
        "Render": lambda: client.stub.Render(render, timeout=TIMEOUT_SECONDS),
    }


async def test_damaged_files_are_reported_to_those_who_read_them(tmp_path: Path) -> None:
    ids = {name: new_id() for name in DAMAGES}
    intact = new_id()
    async with run_export_service(tmp_path) as client:
        await client.export(intact, music(0.5))
        for name, (format_, damage) in DAMAGES.items():
            # Converted, so that the next start reads the file to restore the live audio.
            exported = await client.export(ids[name], music(0.5), output=output_options(format_))
            damage(tmp_path / exported.file_path)
    async with run_export_service(tmp_path) as client:
        for generation_id in ids.values():
            for call in readers(client, generation_id).values():
                async with raises_rpc_error("UNAVAILABLE", "FILE_DAMAGED"):
                    await call()
            assert await client.download(generation_id), "what is left can be downloaded"
        for call in readers(client, intact).values():
            await call()
        page = await client.stub.ListFiles(export_pb2.ListFilesRequest(), timeout=TIMEOUT_SECONDS)
        assert {file.generation_id for file in page.files} == {intact, *ids.values()}
        for generation_id in ids.values():  # Another attempt replaces the file.
            await client.export(generation_id, music(0.5), attempt=2)
            await readers(client, generation_id)["StreamAudio"]()


@pytest.mark.parametrize("description", [b"{", b"[]", b'{"format": "x"}', b"\xff" * 100])
async def test_damaged_description_of_a_render_has_it_rendered_again(tmp_path: Path, description: bytes) -> None:
    async with run_export_service(tmp_path) as client:
        generation_id = new_id()
        await client.export(generation_id, music(0.3))
        rendered = await readers(client, generation_id)["Render"]()
        assert isinstance(rendered, export_pb2.RenderResponse)
        (tmp_path / rendered.file.file_path).with_suffix(".json").write_bytes(description)
        assert await readers(client, generation_id)["Render"]() == rendered


async def test_damaged_spool_is_not_resumed(tmp_path: Path) -> None:
    """The samples have another hash, another size, or a description that cannot be read, or are gone."""
    ids = [new_id() for _ in range(6)]
    async with run_export_service(tmp_path) as client:
        with armed("export.before_rename:EIO"):
            for generation_id in ids:
                async with raises_rpc_error("UNAVAILABLE"):
                    await client.export(generation_id, music(0.3))
    flipped, shorter, undescribed, running, longer, gone = (
        tmp_path / f"spool/{generation_id}.1.pcm.part" for generation_id in ids
    )
    content = bytearray(flipped.read_bytes())
    content[1000] ^= 1
    flipped.write_bytes(content)
    shorter.write_bytes(content[:-8])
    undescribed.with_name(f"{ids[2]}.1.json").write_bytes(b"{}")
    async with run_export_service(tmp_path) as client:
        assert shorter.name not in client.spools()
        running.write_bytes(content[:-8])
        longer.write_bytes(longer.read_bytes() + b"abc")
        gone.unlink()
        for generation_id in ids:
            async with raises_rpc_error("NOT_FOUND", "RECEIVED_AUDIO_NOT_FOUND"):
                await client.resume(generation_id, 2)
            await client.export(generation_id, music(0.3), attempt=2)
