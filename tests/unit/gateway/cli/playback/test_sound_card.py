"""Playing through the sound card, of which a thread takes samples as PortAudio does."""

from __future__ import annotations

import asyncio
import sys

import numpy as np
import pytest

from gateway.cli.playback.audio_sink import PcmFormat
from gateway.cli.playback.sound_card import SoundCard
from gateway.cli.session.command_errors import CommandError
from tests.support.sound_device import PortAudioError, SoundDevice

RATE = 8000
FORMAT = PcmFormat(RATE, 2, 0)


def ramp(seconds: float, start: int = 1) -> bytes:
    """Samples none of which is silent."""
    return np.arange(start, start + round(seconds * RATE) * 2, dtype="<f4").tobytes()


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> SoundDevice:
    device = SoundDevice()
    monkeypatch.setitem(sys.modules, "sounddevice", device)
    return device


async def test_every_sample_is_heard_once_and_in_order(device: SoundDevice) -> None:
    card, pcm = SoundCard(), ramp(3)
    await card.open(FORMAT)
    for start in range(0, len(pcm), 8000):
        await card.write(pcm[start : start + 8000])
    await card.finish()
    [stream] = device.streams
    assert stream.format == (RATE, 2)
    assert stream.sounds() == pcm


async def test_samples_that_come_too_late_are_waited_for_in_silence(device: SoundDevice) -> None:
    card, first, second = SoundCard(), ramp(0.5), ramp(0.5, start=50_000)
    await card.open(FORMAT)
    [stream] = device.streams
    await card.write(first)
    await stream.wait_until(lambda: stream.sounds() == first and stream.heard.endswith(bytes(4096)))
    await card.write(second[:800])
    size = len(stream.heard) + 8192
    await stream.wait_until(lambda: len(stream.heard) >= size)
    assert stream.sounds() == first, "a little would soon be followed by silence again"
    await card.write(second[800:])
    await card.finish()
    assert stream.sounds() == first + second
    silence = bytes(stream.heard)[bytes(stream.heard).index(first) + len(first) :].index(second)
    assert silence >= 4096


async def test_nothing_is_heard_before_there_is_enough_unless_that_is_all(device: SoundDevice) -> None:
    card, pcm = SoundCard(), ramp(0.05)
    await card.open(FORMAT)
    [stream] = device.streams
    await card.write(pcm)
    size = len(stream.heard) + 8192
    await stream.wait_until(lambda: len(stream.heard) >= size)
    assert stream.sounds() == b""
    await card.finish()
    assert stream.sounds() == pcm


async def test_writing_waits_while_a_second_is_still_to_be_heard(device: SoundDevice) -> None:
    card, pcm = SoundCard(), ramp(4)
    await card.open(FORMAT)
    await card.write(pcm)
    assert len(device.streams[0].sounds()) >= len(pcm) - RATE * FORMAT.frame_bytes - 8192
    card.stop()


async def test_stop_drops_what_has_not_been_heard(device: SoundDevice) -> None:
    card = SoundCard()
    await card.open(FORMAT)
    await card.write(ramp(1))
    card.stop()
    [stream] = device.streams
    assert stream.is_aborted
    assert len(stream.sounds()) < len(ramp(1))


async def test_card_that_goes_away_is_an_error(device: SoundDevice) -> None:
    card = SoundCard()
    await card.open(FORMAT)
    device.streams[0].unplug()
    with pytest.raises(CommandError, match=r"the sound card has stopped; .*--stdout \| ffplay -"):
        await asyncio.wait_for(card.write(ramp(60)), 60)
    card.stop()


async def test_card_that_refuses_the_format_is_an_error(device: SoundDevice) -> None:
    card = SoundCard()
    with pytest.raises(CommandError, match=r"can't play 8001 Hz with 2 channels \(Invalid sample rate .*--stdout"):
        await card.open(PcmFormat(8001, 2, 0))


async def test_card_can_be_opened_again(device: SoundDevice) -> None:
    card = SoundCard()
    for number in range(2):
        await card.open(FORMAT)
        await card.write(ramp(0.1, start=1 + number))
        await card.finish()
        assert device.streams[number].sounds() == ramp(0.1, start=1 + number)


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(CommandError, match=r"pip install 'dgx-music\[play\]'`, or .*--stdout \| ffplay -"):
        SoundCard()


def test_missing_portaudio_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(sys, "meta_path", [_WithoutPortAudio(), *sys.meta_path])
    with pytest.raises(CommandError, match="`apt install libportaudio2` or `brew install portaudio`"):
        SoundCard()


class _WithoutPortAudio:
    """Imports sounddevice as it is where PortAudio is missing."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "sounddevice":
            raise OSError("PortAudio library not found")


def test_missing_card_is_named(device: SoundDevice) -> None:
    device.problem = PortAudioError("Error querying device -1")
    with pytest.raises(CommandError, match=r"there is no sound card \(Error querying device -1\); connect one"):
        SoundCard()
