"""`dgx-music play`, `generate --play` and `--stdout` with real services."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from dgx_music.client import connect
from dgx_music.export.v1 import export_pb2 as export
from dgx_music.pcm import PcmWriter, live_header
from dgx_music.storage.v1 import storage_pb2 as storage
from gateway.cli.commands.generation.play import Playback, play
from gateway.cli.display.console import Console
from gateway.cli.playback.audio_sink import PcmFormat
from gateway.cli.session.command_errors import BAD_INPUT, FAILURE, CommandError
from gateway.cli.session.runner import Session
from tests.support.command_line import InProcessShell
from tests.support.cut_connection import Forwarder, forwarding_to
from tests.support.embedded_services import EmbeddedServices
from tests.support.library_files import completed
from tests.support.printed_output import session_for
from tests.support.sound_device import SoundDevice

RATE_HZ, CHANNELS = 32_000, 2
TIMEOUT_SECONDS = 60.0


class Memory:
    """Keeps what it is sent, and stops taking more after `limit` bytes until the test lets it."""

    def __init__(self, limit: int | None = None) -> None:
        self.formats: list[PcmFormat] = []
        self.pcm = b""
        self.is_finished = False
        self.is_full = asyncio.Event()
        self.has_room = asyncio.Event()
        self._limit = limit

    async def open(self, pcm_format: PcmFormat) -> None:
        self.formats.append(pcm_format)

    async def write(self, pcm: bytes) -> None:
        self.pcm += pcm
        if self._limit is not None and len(self.pcm) > self._limit:
            self._limit = None
            self.is_full.set()
            await self.has_room.wait()

    async def finish(self) -> None:
        self.is_finished = True

    def stop(self) -> None:
        pass


class Upload:
    """Sends samples to export bit by bit, as a worker does."""

    def __init__(self, services: EmbeddedServices, generation: storage.Generation, frames: int) -> None:
        self._call = services.export.Export(timeout=TIMEOUT_SECONDS)
        self._writer = PcmWriter(CHANNELS)
        self._header = live_header(generation.id, generation.attempt, RATE_HZ, CHANNELS, frames)

    async def start(self) -> None:
        header = export.ExportHeader(audio=self._header, tags=export.Tags(model_name="sketch"))
        await self._call.write(export.ExportRequest(header=header))

    async def send(self, pcm: bytes) -> None:
        for chunk in self._writer.chunks(pcm):
            await self._call.write(export.ExportRequest(chunk=chunk))

    async def end(self) -> None:
        await self._call.write(export.ExportRequest(end=self._writer.end()))
        await self._call.done_writing()
        await self._call

    def break_off(self) -> None:
        self._call.cancel()


@pytest.fixture
async def forwarder(library_services: EmbeddedServices) -> AsyncIterator[Forwarder]:
    async with forwarding_to(library_services.address) as forwarder:
        yield forwarder


def ramp(frames: int) -> bytes:
    return np.linspace(-0.1, 0.1, frames * CHANNELS, dtype="<f4").tobytes()


async def claimed(services: EmbeddedServices, seconds: float) -> storage.Generation:
    request = storage.CreateGenerationRequest(
        prompt="a", model_name="sketch", duration_seconds=seconds, sample_rate_hz=RATE_HZ, channels=CHANNELS
    )
    await services.storage.CreateGeneration(request, timeout=TIMEOUT_SECONDS)
    claim = storage.ClaimGenerationRequest(worker_id="test", model_names=["sketch"], lease_seconds=60, wait_seconds=5)
    return (await services.storage.ClaimGeneration(claim, timeout=TIMEOUT_SECONDS)).generation


async def test_samples_are_played_while_they_are_generated(library_services: EmbeddedServices, tmp_path: Path) -> None:
    generation, pcm, sink = await claimed(library_services, 2.0), ramp(2 * RATE_HZ), Memory(limit=1)
    session = session_for(library_services, tmp_path)
    playing = asyncio.create_task(play(session, Console(), generation.id, sink))
    upload = Upload(library_services, generation, 2 * RATE_HZ)
    await upload.start()
    await upload.send(pcm[:80_000])
    await asyncio.wait_for(sink.is_full.wait(), TIMEOUT_SECONDS)
    assert sink.formats == [PcmFormat(RATE_HZ, CHANNELS, 2 * RATE_HZ)]
    assert pcm.startswith(sink.pcm)
    sink.has_room.set()
    await upload.send(pcm[80_000:])
    await upload.end()
    assert await asyncio.wait_for(playing, TIMEOUT_SECONDS) == 0
    assert sink.pcm == pcm
    assert sink.is_finished


async def test_playing_goes_on_after_a_lost_connection(
    library_services: EmbeddedServices, forwarder: Forwarder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = 20.0  # More than the buffers between the file and the listener hold.
    generation, whole, sink = await completed(library_services, seconds), Memory(), Memory(limit=1 << 20)
    await play(session_for(library_services, tmp_path), Console(), generation.id, whole)
    async with connect(forwarder.address) as music:
        session = Session(music, tmp_path, is_persistent=True)
        playing = asyncio.create_task(play(session, Console(), generation.id, sink))
        await asyncio.wait_for(sink.is_full.wait(), TIMEOUT_SECONDS)
        forwarder.cut()
        sink.has_room.set()
        assert await asyncio.wait_for(playing, TIMEOUT_SECONDS) == 0
    assert forwarder.accepted == 2
    assert len(sink.pcm) == round(seconds * RATE_HZ) * CHANNELS * 4
    assert sink.pcm == whole.pcm
    assert "interrupted at " in capsys.readouterr().err


async def test_playing_goes_on_with_the_next_attempt(library_services: EmbeddedServices, tmp_path: Path) -> None:
    generation, pcm, sink = await claimed(library_services, 2.0), ramp(2 * RATE_HZ), Memory(limit=1)
    session = session_for(library_services, tmp_path)
    playing = asyncio.create_task(play(session, Console(), generation.id, sink))
    upload = Upload(library_services, generation, 2 * RATE_HZ)
    await upload.start()
    await upload.send(pcm[:100_000])
    await asyncio.wait_for(sink.is_full.wait(), TIMEOUT_SECONDS)
    upload.break_off()
    sink.has_room.set()
    generation.attempt += 1
    upload = Upload(library_services, generation, 2 * RATE_HZ)
    await upload.start()
    await upload.send(pcm)
    await upload.end()
    assert await asyncio.wait_for(playing, TIMEOUT_SECONDS) == 0
    assert sink.pcm == pcm


async def test_position_to_start_at(library_services: EmbeddedServices, tmp_path: Path) -> None:
    generation, whole, part = await completed(library_services, 2.0), Memory(), Memory()
    session = session_for(library_services, tmp_path)
    await play(session, Console(), generation.id, whole)
    await play(session, Console(), generation.id, part, from_seconds=1.5)
    assert part.pcm == whole.pcm[round(1.5 * RATE_HZ) * CHANNELS * 4 :]
    assert part.formats == [PcmFormat(RATE_HZ, CHANNELS, RATE_HZ // 2)]
    with pytest.raises(CommandError, match="--from: 3 s is past the end; there are 2 s") as caught:
        await play(session, Console(), generation.id, Memory(), from_seconds=3)
    assert caught.value.exit_status == BAD_INPUT


async def test_playback_ends_with_an_error_only_for_what_can_be_played(
    library_services: EmbeddedServices, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session, console = session_for(library_services, tmp_path), Console()
    cancelled, finished = await claimed(library_services, 1.0), await completed(library_services, 0.5)
    await library_services.music.CancelGeneration(storage.CancelGenerationRequest(id=cancelled.id), timeout=60)
    sink = Memory()
    async with Playback(session, console, sink, [cancelled.id, finished.id]) as playback:
        assert await playback.finish() == FAILURE
    assert sink.is_finished
    assert "error" not in capsys.readouterr().err
    async with Playback(session, console, _Broken(), [finished.id]) as playback:
        assert await playback.finish() == FAILURE
    assert "error: stopped playing: the plug was pulled" in capsys.readouterr().err


class _Broken(Memory):
    async def open(self, pcm_format: PcmFormat) -> None:
        raise CommandError("the plug was pulled")


def test_generate_plays_and_saves(shell: InProcessShell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = SoundDevice()
    monkeypatch.setitem(sys.modules, "sounddevice", device)
    output = tmp_path / "a.wav"
    arguments = ("-d", "1", "--seed", "1", "--count", "2", "--loudness", "none", "--format", "wav-float")
    shell.run("generate", "techno", "--play", "-o", str(output), *arguments)
    heard = [without_silence(stream.heard) for stream in device.streams]
    saved = [without_silence(soundfile.read(tmp_path / f"a-{n}.wav", dtype="float32")[0].tobytes()) for n in (1, 2)]
    assert [len(one) for one in heard] == [len(one) for one in saved]
    np.testing.assert_allclose(np.frombuffer(heard[1], "<f4"), np.frombuffer(saved[1], "<f4"), atol=1e-6)
    generation_id = shell.run("history", "-n", "1", "--ids").stdout.strip()
    shell.run("play", generation_id, "--from", "0.5")
    assert 0 < len(without_silence(device.streams[2].heard)) <= len(heard[1]) // 2 + 8


def without_silence(pcm: bytes | bytearray) -> bytes:
    samples = np.frombuffer(bytes(pcm), "<f4").reshape(-1, CHANNELS)
    return samples[np.any(samples != 0, axis=1)].tobytes()


def test_combinations_are_refused_before_anything_is_queued(shell: InProcessShell) -> None:
    for arguments, says in [
        (("x", "--stdout", "--json"), "--stdout: standard output takes one piece of audio and nothing else"),
        (("x", "--stdout", "--count", "2"), "--count"),
        (("x", "--stdout", "-o", "-"), "--output -"),
        (("x", "--raw"), "--raw: can only be used together with --stdout"),
        (("x", "--play", "--detach"), "--detach: it exits before the file is finished"),
        (("x", "--file", "p.txt"), "--file: the file has the prompts"),
        (("x", "--run", "a"), "--run: can only be used together with --file"),
        ((), "PROMPT: describe the music"),
    ]:
        assert says in shell.run("generate", *arguments, status=2).stderr
    assert "--raw" in shell.error("play", "ID", "--raw", status=2)
    assert shell.generations("history") == []
