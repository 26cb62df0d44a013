"""The sounds of a piece, each of which is rendered when it is first played."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from generation_service.models.base import FloatArray
from generation_service.models.sketch.composition.notes import Note
from generation_service.models.sketch.synthesis.drums import LAYERS, VARIANTS, layer_of, render_drum
from generation_service.models.sketch.synthesis.instruments import render_instrument
from generation_service.models.sketch.synthesis.texture import TEXTURES, render_endless_texture, render_texture

_MAX_BYTES: Final = 24 << 20
_GATE_GRID_FRAMES: Final = 512
"""Gates are rounded up to a multiple of this, so that notes of similar length share one rendering."""

Key = tuple[str, tuple[int, ...], int, int, int, str, float]


class SoundCache:
    """Renders the sounds of notes, and keeps those that were used last."""

    def __init__(self, seed: int, tonic: int) -> None:
        self._seed = seed
        self._tonic = tonic
        self._sounds: OrderedDict[Key, FloatArray] = OrderedDict()
        self._bytes = 0

    def render(self, note: Note) -> FloatArray:
        """The sound of a note at full level: float32 [1 or 2, frames]. Raises KeyError if its name is unknown.

        A texture with a gate is as long as that, and its end leads into its start.
        """
        if note.sound in TEXTURES:
            return render_endless_texture(note.sound, note.gate) if note.gate else render_texture(note.sound)
        layer = layer_of(note.velocity)
        if not note.pitches:
            layer = 0 if note.articulation == "ghost" else layer
            # By the place in the score, so that the same bar sounds the same wherever it stands in a stream.
            variant = round(note.grid * 4.0) % VARIANTS
            return render_drum(note.sound, self._tonic, layer, variant)
        gate = -(-note.gate // _GATE_GRID_FRAMES) * _GATE_GRID_FRAMES
        key = (note.sound, note.pitches, gate, note.glide, layer, note.articulation, note.lfo_hz)
        sound = self._sounds.get(key)
        if sound is not None:
            self._sounds.move_to_end(key)
            return sound
        sound = render_instrument(
            note.sound, note.pitches, gate, note.glide, self._seed, hardness=(layer + 0.5) / LAYERS,
            articulation=note.articulation, lfo_hz=note.lfo_hz,
        )  # fmt: skip
        self._sounds[key] = sound
        self._bytes += sound.nbytes
        while self._bytes > _MAX_BYTES and len(self._sounds) > 1:
            self._bytes -= self._sounds.popitem(last=False)[1].nbytes
        return sound
