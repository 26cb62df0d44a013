"""Encodes clips to codes, and keeps what was encoded last."""

from __future__ import annotations

import contextlib
import hashlib

import numpy as np
import torch

from generation_service.models.base import FloatArray
from generation_service.models.musicgen.codec.encodec import Encodec
from generation_service.models.musicgen.conditioners.prompt_cache import PromptCache
from generation_service.models.musicgen.delay_pattern import Codes

MAX_CACHED_CLIPS = 256
"""More than the engine has encoded ahead. One of 30 s has 48 KB of codes."""
MAX_CACHED_BYTES = 16 << 20


class ClipEncoder:
    """Encodes clips on the codec's device, on CUDA on a stream of its own. Any thread can call it.

    EnCodec takes long for a clip, on a CPU a quarter of its duration. So the engine's prompt thread encodes it while
    other requests are stepped, and `prefill` finds the codes by the samples.
    """

    def __init__(self, codec: Encodec) -> None:
        self.codec = codec
        self._cache: PromptCache[Codes] = PromptCache(MAX_CACHED_CLIPS, MAX_CACHED_BYTES)
        self._stream: torch.cuda.Stream | None = None
        if codec.device.type == "cuda":
            self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            self._stream.wait_stream(torch.cuda.current_stream())

    def encode(self, samples: FloatArray) -> Codes:
        """samples: [frames, channels] → codes: [K, n], as from `Encodec.encode`. They must not be modified."""
        samples = np.ascontiguousarray(samples)
        key = hashlib.sha256(samples.data).hexdigest()
        codes = self._cache.get(key)
        if codes is None:
            with torch.cuda.stream(self._stream) if self._stream else contextlib.nullcontext():
                codes = self.codec.encode(samples.copy()).numpy()  # torch needs a writable array.
            self._cache.put(key, codes, codes.nbytes)
        return codes
