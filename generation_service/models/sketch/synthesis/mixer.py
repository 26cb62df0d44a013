"""The mixer renders notes into blocks. Only notes that are still sounding are carried over to the next block."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count
from typing import Final

import numpy as np

from generation_service.models.base import FloatArray
from generation_service.models.sketch.composition.notes import Note
from generation_service.models.sketch.synthesis.drums import render_drum
from generation_service.models.sketch.synthesis.instruments import render_instrument
from generation_service.models.sketch.synthesis.master_bus import MasterBus
from generation_service.models.sketch.synthesis.reverb import Reverb
from generation_service.models.sketch.synthesis.texture import TEXTURES, render_texture

_MAX_CACHE_BYTES: Final = 24 << 20
_GATE_GRID_FRAMES: Final = 512
"""Gates are rounded up to a multiple of this, so that notes of similar length share one rendering."""
_DUCK_ATTACK_FRAMES: Final = 160


@dataclass(slots=True)
class _Voice:
    note: Note
    sound: FloatArray
    levels: FloatArray
    """The gains of left and right: [2, 1]."""


class Mixer:
    """Overlap-adds rendered notes and applies the side-chain, the reverb and the master bus."""

    def __init__(
        self, *, block: int, rate_hz: int, duck: float, duck_seconds: float, reverb_seconds: float,
        reverb_gain: float, gain: float, seed: int, tonic: int,
    ) -> None:  # fmt: skip
        self._block = block
        self._seed = seed
        self._tonic = tonic
        self._position = 0
        self._scheduled: list[tuple[int, int, Note]] = []
        self._order = count()
        self._voices: list[_Voice] = []
        self._kicks: list[int] = []
        self._duck = _duck_curve(duck, int(duck_seconds * rate_hz)) if duck else None
        self._reverb = Reverb(reverb_seconds, rate_hz, block)
        self._reverb_gain = np.float32(reverb_gain)
        self._master = MasterBus(rate_hz, gain)
        self._cache: OrderedDict[tuple[str, tuple[int, ...], int, int], FloatArray] = OrderedDict()
        self._cached_bytes = 0

    def schedule(self, notes: Iterable[Note]) -> None:
        """Adds notes that start in the current block or later."""
        for note in notes:
            heapq.heappush(self._scheduled, (note.start, next(self._order), note))

    def render(self) -> FloatArray:
        """Renders the next block: float32 [2, block], within the ceiling of the master bus."""
        end = self._position + self._block
        while self._scheduled and self._scheduled[0][0] < end:
            self._start_voice(heapq.heappop(self._scheduled)[2])
        dry = np.zeros((2, self._block), np.float32)
        ducked = np.zeros((2, self._block), np.float32)
        send = np.zeros(self._block, np.float32)
        for voice in self._voices:
            self._mix_voice(voice, ducked if voice.note.ducked else dry, send)
        self._voices = [v for v in self._voices if v.note.start + v.sound.shape[1] > end]
        ducked += self._reverb.process(send) * self._reverb_gain
        if self._duck is not None:
            ducked *= self._duck_gain(self._duck)
        self._position = end
        dry += ducked
        return self._master.process(dry)

    def _start_voice(self, note: Note) -> None:
        sound = self._render_note(note)
        if note.is_kick:
            self._kicks.append(note.start)
        # Constant power panning. A stereo sound is balanced rather than moved, so that it keeps its width.
        angle = (note.pan + 1.0) * np.pi / 4.0
        sides = np.array([[np.cos(angle)], [np.sin(angle)]], np.float32)
        self._voices.append(_Voice(note, sound, sides * np.float32(note.gain * np.sqrt(2.0))))

    def _mix_voice(self, voice: _Voice, bus: FloatArray, send: FloatArray) -> None:
        skip = self._position - voice.note.start
        first = max(0, -skip)
        piece = voice.sound[:, max(0, skip) : max(0, skip) + self._block - first]
        span = slice(first, first + piece.shape[1])
        bus[:, span] += piece * voice.levels
        if voice.note.send:
            level = np.float32(voice.note.gain * voice.note.send)
            send[span] += (piece[0] + piece[1]) * (level * np.float32(0.7)) if len(piece) == 2 else piece[0] * level

    def _duck_gain(self, curve: FloatArray) -> FloatArray:
        gain = np.ones(self._block, np.float32)
        for kick in self._kicks:
            skip = self._position - kick
            first = max(0, -skip)
            piece = curve[max(0, skip) : max(0, skip) + self._block - first]
            span = gain[first : first + len(piece)]
            np.minimum(span, piece, out=span)
        end = self._position + self._block
        self._kicks = [kick for kick in self._kicks if kick + len(curve) > end]
        return gain

    def _render_note(self, note: Note) -> FloatArray:
        if note.sound in TEXTURES:
            return render_texture(note.sound)
        if not note.pitches:
            return render_drum(note.sound, self._tonic)
        gate = -(-note.gate // _GATE_GRID_FRAMES) * _GATE_GRID_FRAMES
        key = (note.sound, note.pitches, gate, note.glide)
        sound = self._cache.get(key)
        if sound is not None:
            self._cache.move_to_end(key)
            return sound
        sound = render_instrument(note.sound, note.pitches, gate, note.glide, self._seed)
        self._cache[key] = sound
        self._cached_bytes += sound.nbytes
        while self._cached_bytes > _MAX_CACHE_BYTES and len(self._cache) > 1:
            self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return sound


def _duck_curve(depth: float, frames: int) -> FloatArray:
    """The gain after a kick: it falls within 5 ms and returns along a raised cosine, without a step at either end."""
    rise = np.float32(0.5) - np.float32(0.5) * np.cos(np.linspace(0.0, np.pi, frames, dtype=np.float32))
    curve = np.float32(1.0) - np.float32(depth) * (np.float32(1.0) - rise)
    fall = np.linspace(1.0, 0.0, _DUCK_ATTACK_FRAMES, dtype=np.float32)
    curve[:_DUCK_ATTACK_FRAMES] += (np.float32(1.0) - curve[:_DUCK_ATTACK_FRAMES]) * fall
    return curve
