"""Separates what carries the melody, vocals and the other instruments, from drums and bass, by demucs.

Source: audiocraft 1.3.0, `modules/conditioners.py`, ChromaStemConditioner. demucs and its weights are optional: without
them, the melody is that of the whole mix, where drums and bass may hide it. audiocraft shifts the audio in time by a
random amount first; here it is not shifted, so that a seed makes the same music again.
"""

from __future__ import annotations

import importlib
import json
import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
import yaml
from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError, safe_open
from torch import Tensor

from generation_service.models.musicgen.conditioners.side_stream import SideStream
from generation_service.models.musicgen.conditioners.sinc_resampling import resample_sinc
from generation_service.models.published import SEPARATOR
from service_runtime.optional_deps import install_extra_command

_BAG = "htdemucs.yaml"
_CLASS = "demucs.htdemucs.HTDemucs"
_STEMS = ("vocals", "other")


class SeparationUnavailable(Exception):
    """Says what is missing, and how to get it."""


class MelodySeparator:
    """demucs's `htdemucs`. Any thread can call it."""

    name = "htdemucs"

    def __init__(self, device: str | torch.device = "cpu", *, cache: Path | None = None) -> None:
        """Loads it from the Hugging Face cache; nothing is downloaded, and no code in it is run.

        Raises SeparationUnavailable if demucs or its weights are missing.
        """
        try:
            self._apply: Any = importlib.import_module("demucs.apply").apply_model
            network: Any = importlib.import_module("demucs.htdemucs").HTDemucs
        except ImportError as error:
            command = install_extra_command("melody")
            raise SeparationUnavailable(f"demucs is not installed ({error}); install it with: {command}") from None
        file = _find_weights(cache)
        try:
            with safe_open(file, framework="pt") as weights:
                metadata = weights.metadata() or {}
                if metadata.get("klass") != _CLASS or "structure" in metadata:
                    found = metadata.get("klass")
                    raise SeparationUnavailable(f"{file}: its class is {found!r}; only {_CLASS} is supported")
                arguments, keywords = (_decode(json.loads(metadata[key])) for key in ("args", "kwargs"))
                self._network = network(*arguments, **keywords)
                self._network.load_state_dict({key: weights.get_tensor(key) for key in weights.keys()})  # noqa: SIM118
        except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
            problem = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise SeparationUnavailable(f"{file}: not demucs's weights ({problem})") from error
        self._network.to(device).requires_grad_(False).eval()
        self._device = torch.device(device)
        self._stream = SideStream(device)
        self._lock = threading.Lock()
        self._stems = [self._network.sources.index(stem) for stem in _STEMS]
        self.names: tuple[str, ...] = tuple(self._network.sources)
        """What it separates: drums, bass, other and vocals."""
        self.sample_rate_hz: int = self._network.samplerate
        self.channels: int = self._network.audio_channels

    @torch.inference_mode()
    def separate(self, samples: Tensor, sample_rate_hz: int) -> Tensor:
        """Mono samples, [n] → those of vocals and other instruments, [n], on the CPU."""
        mix = resample_sinc(samples.expand(self.channels, -1), sample_rate_hz, self.sample_rate_hz)
        melody = self.separate_all(mix)[self._stems].sum(0).mean(0)
        return resample_sinc(melody, self.sample_rate_hz, sample_rate_hz)

    @torch.inference_mode()
    def separate_all(self, mix: Tensor) -> Tensor:
        """Samples at its own rate and channels, [channels, n] → [sources, channels, n] in the order of `names`, on the
        CPU."""
        with self._lock, self._stream.open():
            sources: Tensor = self._apply(self._network, mix[None], shifts=0, device=self._device)
            return sources[0].cpu()


def _find_weights(cache: Path | None) -> Path:
    bag = try_to_load_from_cache(SEPARATOR, _BAG, cache_dir=cache)
    if isinstance(bag, str):
        try:
            names = [str(name) for name in yaml.safe_load(Path(bag).read_text())["models"]]
        except (OSError, yaml.YAMLError, ValueError, KeyError, TypeError, RecursionError):
            raise SeparationUnavailable(f"{bag} is damaged; download {SEPARATOR} again") from None
        file = try_to_load_from_cache(SEPARATOR, f"{names[0]}.safetensors", cache_dir=cache) if names else None
        if len(names) == 1 and isinstance(file, str):
            return Path(file)
    problem = f"{SEPARATOR} is not in the Hugging Face cache; download it with: hf download {SEPARATOR}"
    raise SeparationUnavailable(problem)


def _decode(value: Any) -> Any:
    """demucs writes fractions as {"_type": "fraction", "numerator": …, "denominator": …}."""
    if isinstance(value, dict):
        if value.get("_type") == "fraction":
            return Fraction(value["numerator"], value["denominator"])
        return {key: _decode(item) for key, item in value.items()}
    return [_decode(item) for item in value] if isinstance(value, list) else value
