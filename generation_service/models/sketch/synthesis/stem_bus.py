"""The bus of one stem: its notes, their side-chain, and its own reverb and delay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from generation_service.models.base import FloatArray
from generation_service.models.sketch.composition.notes import Note
from generation_service.models.sketch.synthesis.character import Character, LowPass, saturate
from generation_service.models.sketch.synthesis.reverb import Reverb
from generation_service.models.sketch.synthesis.stereo_delay import StereoDelay

_WIDTHS: Final = {"bass": 0.35}
"""The share of the difference between left and right that is kept: a bass stands in the middle, also on vinyl."""
STEMS: Final = ("drums", "bass", "chords", "melody", "texture")
"""The stems, in the order in which they are summed."""


@dataclass(slots=True)
class Voice:
    """A note that sounds."""

    note: Note
    sound: FloatArray
    """[1 or 2, frames]"""
    levels: FloatArray
    """The gains of left and right: [2, 1]."""

    @property
    def end(self) -> int:
        return self.note.start + len(self.sound[0])


class StemBus:
    """Overlap-adds the voices of a stem. Only those that still sound are carried over to the next block."""

    def __init__(
        self, stem: str, block: int, reverb: Reverb, reverb_gain: float, delay: StereoDelay | None, character: Character
    ) -> None:
        self._drive = {"drums": character.drum_drive, "texture": 0.0}.get(stem, character.music_drive)
        self._low_pass = LowPass(character.lowpass_hz) if character.lowpass_hz else None
        self._width = np.float32(_WIDTHS.get(stem, 1.0))
        self._block = block
        self._reverb = reverb
        self._reverb_gain = np.float32(reverb_gain)
        self._delay = delay
        self._voices: list[Voice] = []

    def add(self, voice: Voice) -> None:
        self._voices.append(voice)

    def render(self, position: int, duck: FloatArray | None) -> FloatArray:
        """The block from frame `position` on: float32 [2, block]. `duck` is the gain of the side-chain, [block]."""
        dry = np.zeros((2, self._block), np.float32)
        ducked = np.zeros((2, self._block), np.float32)
        sends = np.zeros((2, self._block), np.float32)
        for voice in self._voices:
            self._mix(voice, position, ducked if voice.note.ducked else dry, sends)
        self._voices = [voice for voice in self._voices if voice.end > position + self._block]
        send, echo = sends
        if self._delay is not None and (repeats := self._delay.process(echo)) is not None:
            ducked += repeats
            send += np.float32(0.15) * (repeats[0] + repeats[1])  # The repeats are in the same room.
        if (wet := self._reverb.process(send)) is not None:
            ducked += wet * self._reverb_gain
        if duck is not None:
            ducked *= duck
        dry += ducked
        if self._width != 1.0:
            side = np.float32(0.5) * (np.float32(1.0) - self._width) * (dry[0] - dry[1])
            dry[0] -= side
            dry[1] += side
        saturate(dry, self._drive)
        return dry if self._low_pass is None else self._low_pass.process(dry)

    def _mix(self, voice: Voice, position: int, bus: FloatArray, sends: FloatArray) -> None:
        note = voice.note
        skip = position - note.start
        first = max(0, -skip)
        piece = voice.sound[:, max(0, skip) : max(0, skip) + self._block - first]
        span = slice(first, first + piece.shape[1])
        bus[:, span] += piece * voice.levels
        if note.send or note.echo:
            mono = (piece[0] + piece[1]) * np.float32(0.7) if len(piece) == 2 else piece[0]
            if note.send:
                sends[0, span] += mono * np.float32(note.gain * note.send)
            if note.echo:
                sends[1, span] += mono * np.float32(note.gain * note.echo)
