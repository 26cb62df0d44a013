"""The mixer renders notes into blocks of stems, whose sum is the mix."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count
from typing import Final

import numpy as np

from generation_service.models.base import FloatArray
from generation_service.models.sketch.composition.notes import Note
from generation_service.models.sketch.synthesis.character import character_of
from generation_service.models.sketch.synthesis.master_bus import MasterBus
from generation_service.models.sketch.synthesis.reverb import Reverb
from generation_service.models.sketch.synthesis.sound_cache import SoundCache
from generation_service.models.sketch.synthesis.stem_bus import STEMS, StemBus, Voice
from generation_service.models.sketch.synthesis.stereo_delay import StereoDelay

_DUCK_ATTACK_FRAMES: Final = 160
_DRUM_ROOM_SHARE: Final = 0.45
"""The drums stand in a smaller room, so that they stay dry and close."""
_MIN_ROOM_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class MixSettings:
    """What a mixer needs to know of a piece. Times are in seconds."""

    block: int
    rate_hz: int
    duck: float
    """Depth of the side-chain: 0.7 leaves 30 % of the level under a kick."""
    duck_seconds: float
    reverb_seconds: float
    reverb_gain: float
    echo_seconds: float
    """Time between two repeats of the delay; 0 for none."""
    gain: float
    genre: str
    seed: int
    tonic: int
    """The pitch class to which drums are tuned."""
    start: int = 0
    """The frame of the first block; negative for what is before the beginning of a loop."""


class Mixer:
    """Gives each note to the bus of its stem, and takes the stems through the master bus.

    A stem costs nothing before its first note.
    """

    def __init__(self, settings: MixSettings) -> None:
        self._settings = settings
        self._position = settings.start
        self._scheduled: list[tuple[int, int, Note]] = []
        self._order = count()
        self._buses: dict[int, StemBus] = {}
        self._kicks: list[int] = []
        frames = int(settings.duck_seconds * settings.rate_hz)
        self._duck = _duck_curve(settings.duck, frames) if settings.duck else None
        self._master = MasterBus(settings.rate_hz, settings.gain, len(STEMS))
        self._sounds = SoundCache(settings.seed, settings.tonic)

    def schedule(self, notes: Iterable[Note]) -> None:
        """Adds notes that start in the current block or later. Raises ValueError if the stem of one is unknown."""
        for note in notes:
            heapq.heappush(self._scheduled, (note.start, next(self._order), note))

    def render(self) -> FloatArray:
        """Renders the next block: float32 [stems, 2, block], in the order of STEMS. Their sum is within the ceiling of
        the master bus."""
        end = self._position + self._settings.block
        while self._scheduled and self._scheduled[0][0] < end:
            self._start_voice(heapq.heappop(self._scheduled)[2])
        duck = None if self._duck is None else self._duck_gain(self._duck)
        stems = np.zeros((len(STEMS), 2, self._settings.block), np.float32)
        for index, bus in self._buses.items():
            stems[index] = bus.render(self._position, duck)
        self._position = end
        self._master.process(stems)
        return stems

    def _start_voice(self, note: Note) -> None:
        index = STEMS.index(note.stem)
        bus = self._buses.get(index)
        if bus is None:
            bus = self._buses[index] = self._open_bus(note.stem)
        if note.is_kick:
            self._kicks.append(note.start)
        # Constant power panning. A stereo sound is balanced rather than moved, so that it keeps its width.
        angle = (note.pan + 1.0) * np.pi / 4.0
        sides = np.array([[np.cos(angle)], [np.sin(angle)]], np.float32)
        bus.add(Voice(note, self._sounds.render(note), sides * np.float32(note.gain * np.sqrt(2.0))))

    def _open_bus(self, stem: str) -> StemBus:
        settings = self._settings
        seconds = settings.reverb_seconds
        if stem == "drums":
            seconds = min(seconds, max(_MIN_ROOM_SECONDS, _DRUM_ROOM_SHARE * seconds))
        delay_frames = int(settings.echo_seconds * settings.rate_hz)
        return StemBus(
            stem,
            settings.block,
            Reverb(seconds, settings.rate_hz, settings.block),
            settings.reverb_gain,
            StereoDelay(delay_frames, settings.block) if delay_frames else None,
            character_of(settings.genre),
        )

    def _duck_gain(self, curve: FloatArray) -> FloatArray:
        block = self._settings.block
        gain = np.ones(block, np.float32)
        for kick in self._kicks:
            skip = self._position - kick
            first = max(0, -skip)
            piece = curve[max(0, skip) : max(0, skip) + block - first]
            span = gain[first : first + len(piece)]
            np.minimum(span, piece, out=span)
        end = self._position + block
        self._kicks = [kick for kick in self._kicks if kick + len(curve) > end]
        return gain


def _duck_curve(depth: float, frames: int) -> FloatArray:
    """The gain after a kick: it falls within 5 ms and returns along a raised cosine, without a step at either end."""
    rise = np.float32(0.5) - np.float32(0.5) * np.cos(np.linspace(0.0, np.pi, frames, dtype=np.float32))
    curve = np.float32(1.0) - np.float32(depth) * (np.float32(1.0) - rise)
    fall = np.linspace(1.0, 0.0, _DUCK_ATTACK_FRAMES, dtype=np.float32)
    curve[:_DUCK_ATTACK_FRAMES] += (np.float32(1.0) - curve[:_DUCK_ATTACK_FRAMES]) * fall
    return curve
