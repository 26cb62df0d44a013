"""Encodes the melody of some audio for MusicGen-melody: its chroma, projected to the width of the language model.

Source: audiocraft 1.3.0, `modules/conditioners.py`, ChromaStemConditioner, with `match_len_on_eval` as it is set for
generating, and `MusicGen._generate_tokens`, which shifts the melody from window to window; transformers 5.23,
`MusicgenMelodyFeatureExtractor`. Unlike audiocraft, the melody is separated once, not in each window anew.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from generation_service.models.base import FloatArray
from generation_service.models.musicgen.checkpoints.checkpoint import Checkpoint
from generation_service.models.musicgen.checkpoints.prefix_config import MelodyConfig
from generation_service.models.musicgen.conditioners.chroma import ChromaExtractor
from generation_service.models.musicgen.conditioners.conditioner_weights import ConditionerWeights
from generation_service.models.musicgen.conditioners.melody_separation import MelodySeparator
from generation_service.models.musicgen.conditioners.prompt_cache import PromptCache

MAX_CACHED_MELODIES = 256
MAX_CACHED_BYTES = 64 << 20


class MelodyConditioner:
    """Encodes melodies, and keeps the latest chroma. Any thread can call it."""

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
        self._cache: PromptCache[list[Tensor]] = PromptCache(MAX_CACHED_MELODIES, MAX_CACHED_BYTES)
        self._lock = threading.Lock()
        silence = self._extractor.extract(torch.zeros(1))
        self.null = self._project(fit_length(silence, config.length))
        """What the model reads where there is no melody, [length, dim]: the chroma of silence."""

    def encode(self, melody: FloatArray, starts: Sequence[int] = (), window_frames: int = 0) -> list[Tensor]:
        """The prefix of each window, [length, dim]. melody: [n, channels] at the model's rate.

        A piece of one window reads the melody from its beginning; it has no `starts`. With several windows, which start
        at `starts` of the melody and are `window_frames` long, the melody is repeated as often as needed.
        """
        return [self._project(chroma) for chroma in self._chroma(melody, starts, window_frames)]

    def prepare(self, melody: FloatArray, starts: Sequence[int] = (), window_frames: int = 0) -> None:
        """Does what takes long, for `encode` to find it."""
        self._chroma(melody, starts, window_frames)

    def _chroma(self, melody: FloatArray, starts: Sequence[int], window_frames: int) -> list[Tensor]:
        melody = np.ascontiguousarray(melody)
        key = f"{hashlib.sha256(melody.data).hexdigest()} {melody.shape} {window_frames} {list(starts)}"
        windows = self._cache.get(key)
        if windows is None:
            windows = self._extract(melody, starts, window_frames)
            self._cache.put(key, windows, sum(window.nbytes for window in windows))
        return windows

    @torch.inference_mode()
    def _extract(self, melody: FloatArray, starts: Sequence[int], window_frames: int) -> list[Tensor]:
        samples = torch.from_numpy(melody.mean(1))
        if not starts and self.config.max_frames:
            samples = samples[: self.config.max_frames]
        if self.separator is not None:
            with self._lock:
                samples = self.separator.separate(samples, self.config.chroma.sample_rate_hz)
        if not starts:
            return [fit_length(self._extractor.extract(samples), self.config.length)]
        windows = (samples[torch.arange(start, start + window_frames) % len(samples)] for start in starts)
        return [fit_length(self._extractor.extract(window), self.config.length) for window in windows]


def fit_length(chroma: Tensor, length: int) -> Tensor:
    """[n, features] → [length, features]: cut, or repeated as often as needed."""
    repetitions = -(-length // len(chroma))
    return chroma.repeat(repetitions, 1)[:length]


def pad_text(text: Tensor | None, tokens: int, dim: int, device: torch.device) -> Tensor:
    """An encoded text, [T, dim] or None, as the prefix of a model without cross-attention: [tokens, dim].

    audiocraft pads the texts of a batch, the empty ones of the null condition included, by zeros that it does not mask.
    """
    if text is None:
        return torch.zeros(tokens, dim, device=device)
    return F.pad(text, (0, 0, 0, tokens - len(text)))
