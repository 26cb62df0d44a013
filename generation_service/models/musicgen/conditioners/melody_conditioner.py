"""Encodes the melody of some audio for MusicGen-melody: its chroma, projected to the width of the language model.

Source: audiocraft 1.3.0, `modules/conditioners.py`, ChromaStemConditioner, with `match_len_on_eval` as it is set for
generating, and `MusicGen._generate_tokens`, which shifts the melody from window to window; transformers 5.23,
`MusicgenMelodyFeatureExtractor`. Unlike audiocraft, the melody is separated once, not in each window anew.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from generation_service.models.base import FloatArray
from generation_service.models.musicgen.checkpoints.checkpoint import Checkpoint
from generation_service.models.musicgen.checkpoints.prefixes.prefix_config import MelodyConfig
from generation_service.models.musicgen.conditioners.chroma import ChromaExtractor
from generation_service.models.musicgen.conditioners.conditioner_weights import ConditionerWeights
from generation_service.models.musicgen.conditioners.melody_separation import MelodySeparator
from generation_service.models.musicgen.conditioners.prompt_cache import PromptCache

MAX_CACHED_MELODIES = 256
MAX_CACHED_BYTES = 256 << 20
"""One of 30 s has 4 MB."""


@dataclass(frozen=True, slots=True, eq=False)
class SeparatedMelody:
    """The part of some audio that carries its melody."""

    samples: Tensor
    """Mono, [n]"""
    chroma: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    """Of the windows that were prepared, by their start and length."""


class MelodyConditioner:
    """Encodes melodies. Any thread can call it."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        config: MelodyConfig,
        dim: int,
        device: str | torch.device = "cpu",
        separator: MelodySeparator | None = None,
    ) -> None:
        """Without `separator`, the melody is that of the whole mix."""
        self.config = config
        self.separator = separator
        self._project = ConditionerWeights(checkpoint, config.name, device).projection(config.chroma.n_chroma, dim)
        self._extractor = ChromaExtractor(config.chroma)
        self._cache: PromptCache[SeparatedMelody] = PromptCache(MAX_CACHED_MELODIES, MAX_CACHED_BYTES)
        silence = self._extractor.extract(torch.zeros(1))
        self.null = self._project(fit_length(silence, config.length))
        """What the model reads where there is no melody, [length, dim]: the chroma of silence."""

    def separate(self, melody: FloatArray) -> SeparatedMelody:
        """What is listened to of a melody, [n, channels] at the model's rate. Takes long with a separator; the latest
        results are kept."""
        melody = np.ascontiguousarray(melody)
        key = f"{hashlib.sha256(melody.data).hexdigest()} {melody.shape}"
        separated = self._cache.get(key)
        if separated is None:
            samples = torch.from_numpy(melody.mean(1))
            if self.separator is not None:
                samples = self.separator.separate(samples, self.config.chroma.sample_rate_hz)
            separated = SeparatedMelody(samples)
            self._cache.put(key, separated, samples.nbytes)
        return separated

    def prepare(self, melody: SeparatedMelody, start: int = 0, frames: int = 0) -> Tensor:
        """The chroma that `encode` projects, [length, n_chroma]. It is kept with the melody."""
        chroma = melody.chroma.get((start, frames))
        if chroma is None:
            samples = melody.samples
            if frames:
                samples = samples[torch.arange(start, start + frames) % len(samples)]
            elif self.config.max_frames:
                samples = samples[: self.config.max_frames]
            chroma = fit_length(self._extractor.extract(samples), self.config.length)
            melody.chroma[start, frames] = chroma
        return chroma

    def encode(self, melody: SeparatedMelody, start: int = 0, frames: int = 0) -> Tensor:
        """The prefix of a window of `frames` frames of audio that begins at frame `start` of the melody, [length, dim].

        The melody is repeated as often as needed, before its beginning as well as after its end. The default is the
        window of a piece that has no other, in which the melody is read to its end.
        """
        return self._project(self.prepare(melody, start, frames))


def fit_length(chroma: Tensor, length: int) -> Tensor:
    """[n, features] → [length, features]: cut, or repeated as often as needed."""
    repetitions = -(-length // len(chroma))
    return chroma.repeat(repetitions, 1)[:length]
