"""Codes that audiocraft's AudioGen and MAGNeT generate, stored in `sound_codes.json`; see `golden_codes`.

    python -m tests.support.sound_codes

regenerates them. It needs audiocraft (`make setup-audiocraft`).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor

from generation_service.models.base import FloatArray
from generation_service.models.musicgen.checkpoints.checkpoint import COMPRESSION_FILE, LM_FILE
from generation_service.models.musicgen.checkpoints.checkpoint_reader import read_checkpoint
from generation_service.models.musicgen.philox import gumbel_noise
from tests.support.golden_codes import checksum, clip

FILE = Path(__file__).with_suffix(".json")
HOP = 320
RATE_HZ, FRAME_RATE_HZ = 16_000, 50
WINDOW, STRIDE = 60, 12
"""Frames of codes in `WINDOWS`, instead of 500 and 100."""
SOUNDS = (
    # prompt, frames, joins at step
    ("dog barking", 40, 0),
    ("sirens of an emergency vehicle, and rain on a tin roof", 60, 0),
    ("", 20, 6),
    ("footsteps in a corridor", 33, 6),
)
WINDOWS = (
    # prompt, frames, joins at step
    ("dog barking", 100, 0),
    ("footsteps in a corridor", WINDOW + 1, 7),
    ("", WINDOW + STRIDE, 20),
    ("sirens of an emergency vehicle, and rain on a tin roof", WINDOW + STRIDE + 1, 50),
)

MAGNETS = {"magnet": "t5-base", "audio-magnet": "t5-large"}
"""The MAGNeT models and their text encoders. Both generate 48 frames of codes at a time."""
MAGNET_PROMPTS = (
    # prompt, joins at step
    ("dog barking", 0),
    ("80s synthwave, with a deep sub and chopped breaks", 0),
    ("", 3),
    ("lofi", 9),
)
MAGNET_SAMPLES = (
    # prompt, seed, top k, top p
    ("dog barking", 1, 0, 0.9),
    ("lofi", (1 << 62) + 7, 0, 0.5),
    ("lofi", 3, 10, 0.0),
    ("", 4, 0, 0.8),
)
MAGNET_CLIPS = (10, 24, 1)
"""Frames of codes of the clips that are continued."""


def checksums_of(folder: Path, t5: str) -> dict[str, float]:
    """The checksums of the model in a folder, under the folder's name, and of its text encoder."""
    from safetensors.torch import load_file

    from tests.support.checkpoints import T5_REVISION

    snapshot = Path(os.environ["HF_HOME"]) / f"hub/models--{t5}/snapshots" / T5_REVISION
    lm, codec = (read_checkpoint(folder / file).map_tensors() for file in (LM_FILE, COMPRESSION_FILE))
    encoder = load_file(snapshot / "model.safetensors")
    return {f"{folder.name}/lm": checksum(lm), f"{folder.name}/codec": checksum(codec), t5: checksum(encoder)}


class AudioGen:
    """audiocraft's own model, loaded from a folder, with greedy decoding."""

    def __init__(self, folder: Path) -> None:
        from audiocraft.models import AudioGen as Reference
        from audiocraft.models import loaders

        lm = loaders.load_lm_model(str(folder))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`torch.nn.utils.weight_norm` is deprecated", FutureWarning)
            codec = loaders.load_compression_model(str(folder))
        self._model = Reference("tiny", codec, lm)
        self._model.max_duration = WINDOW / FRAME_RATE_HZ  # Set last: the constructor checks its stride.

    def codes(self, prompt: str, frames: int) -> Tensor:
        """[K, frames]"""
        seconds = (frames + 0.5) / FRAME_RATE_HZ  # audiocraft rounds down.
        self._model.set_generation_params(use_sampling=False, duration=seconds, extend_stride=STRIDE / FRAME_RATE_HZ)
        codes: Tensor = self._model.generate([prompt], return_tokens=True)[1]
        return codes[0]


class Magnet:
    """audiocraft's own model, loaded from a folder. Its noise is that of `philox`, as its own can't be had again."""

    def __init__(self, folder: Path) -> None:
        from audiocraft.models import MAGNeT, loaders

        lm = loaders.load_lm_model_magnet(str(folder), FRAME_RATE_HZ)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`torch.nn.utils.weight_norm` is deprecated", FutureWarning)
            codec = loaders.load_compression_model(str(folder))
        self._model = MAGNeT(name="tiny", compression_model=codec, lm=lm)
        settings = lm.cfg.generate.lm
        self._settings = {
            "temperature": settings.temp,
            "max_cfg_coef": settings.max_cfg_coef,
            "decoding_steps": settings.decoding_steps,
        }

    def greedy(self, prompt: str, clip: FloatArray | None = None) -> Tensor:
        """[K, 48], beginning with the clip if there is one. clip: [n, 1]."""
        self._model.set_generation_params(use_sampling=False, **self._settings)
        return self._codes(prompt, clip)

    def sampled(self, prompt: str, seed: int, top_k: int, top_p: float) -> Tensor:
        """[K, 48]"""
        from audiocraft.utils import utils

        draws = itertools.count()
        original = utils.sample_top_p, utils.sample_top_k
        utils.sample_top_p = lambda probs, p: _draw(probs, _top_p(probs, p), seed, next(draws))
        utils.sample_top_k = lambda probs, k: _draw(probs, _top_k(probs, k), seed, next(draws))
        self._model.set_generation_params(top_k=top_k, top_p=top_p, **self._settings)
        try:
            return self._codes(prompt, None)
        finally:
            utils.sample_top_p, utils.sample_top_k = original

    def _codes(self, prompt: str, clip: FloatArray | None) -> Tensor:
        if clip is None:
            codes: Tensor = self._model.generate([prompt], return_tokens=True)[1]
        else:
            audio, rate = torch.from_numpy(clip.T.copy())[None], self._model.sample_rate
            codes = self._model.generate_continuation(audio, rate, [prompt], return_tokens=True)[1]
        return codes[0]


def _attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, p: float) -> Tensor:
    """What xformers computes. All are [B, T, H, D]; mask: [B, H, T, T] or None."""
    weights = torch.einsum("bqhd,bkhd->bhqk", queries, keys) / queries.shape[-1] ** 0.5
    weights = torch.softmax(weights if mask is None else weights + mask, -1)
    return torch.einsum("bhqk,bkhd->bqhd", weights, values)


def _top_p(probabilities: Tensor, p: float) -> Tensor:
    """Which codes audiocraft's `sample_top_p` keeps."""
    ordered, codes = probabilities.sort(dim=-1, descending=True)
    return torch.zeros_like(probabilities, dtype=torch.bool).scatter(-1, codes, ordered.cumsum(-1) - ordered <= p)


def _top_k(probabilities: Tensor, k: int) -> Tensor:
    return probabilities >= probabilities.topk(k, dim=-1).values[..., -1:]


def _draw(probabilities: Tensor, kept: Tensor, seed: int, draw: int) -> Tensor:
    """Samples by the Gumbel-max trick: [1, 1, T, card] → [1, 1, T, 1]."""
    frames, card = probabilities.shape[-2:]
    counts = draw * frames + torch.arange(frames)
    noise = gumbel_noise(torch.tensor(seed), counts[:, None], torch.tensor(0), torch.arange(card))
    return (probabilities.log() + noise).masked_fill(~kept, float("-inf")).argmax(-1, keepdim=True)


def reference_codes(home: Path) -> tuple[dict[str, float], dict[str, list[Tensor]]]:
    """Writes the models to a folder, and has audiocraft generate all codes. Returns the weights' checksums as well."""
    from tests.support.checkpoints import write_t5
    from tests.support.sound_checkpoints import T5_LARGE, write_audiogen, write_magnet, write_t5_large

    write_t5(home)
    write_t5_large(home)
    folder = home / "audiogen"
    write_audiogen(folder)
    audiogen = AudioGen(folder)
    codes = {
        f"audiogen/{name}": [audiogen.codes(prompt, frames) for prompt, frames, _ in requests]
        for name, requests in (("sounds", SOUNDS), ("windows", WINDOWS))
    }
    weights = checksums_of(folder, T5_LARGE)
    with _xformers():
        for name, t5 in MAGNETS.items():
            folder = home / name
            write_magnet(folder, is_sound=t5 == T5_LARGE)
            weights |= checksums_of(folder, t5)
            magnet = Magnet(folder)
            codes[f"{name}/greedy"] = [magnet.greedy(prompt) for prompt, _ in MAGNET_PROMPTS]
            codes[f"{name}/sampled"] = [magnet.sampled(*request) for request in MAGNET_SAMPLES]
            hop = HOP * (1 if t5 == T5_LARGE else 2)
            codes[f"{name}/continued"] = [magnet.greedy("dog barking", clip(1, n * hop)) for n in MAGNET_CLIPS]
    return weights, codes


@contextlib.contextmanager
def _xformers() -> Iterator[None]:
    """Has audiocraft compute attention as xformers does, which MAGNeT needs and which has none for a CPU."""
    from audiocraft.modules import transformer

    original = transformer.ops.memory_efficient_attention
    transformer.ops.memory_efficient_attention = _attend
    try:
        yield
    finally:
        transformer.ops.memory_efficient_attention = original
        transformer.set_efficient_attention_backend("torch")


def main() -> None:
    weights, codes = reference_codes(Path(os.environ["HF_HOME"]))
    write(FILE, weights, codes)


def write(file: Path, weights: Mapping[str, float], codes: Mapping[str, list[Tensor]]) -> None:
    versions = {name: metadata.version(name) for name in ("audiocraft", "torch", "transformers")}
    lines = (
        f'"{name}": [\n' + ",\n".join(json.dumps(one.tolist(), separators=(",", ":")) for one in requests) + "\n]"
        for name, requests in codes.items()
    )
    head = json.dumps({**versions, "weights": dict(weights)}, indent=1).removesuffix("\n}")
    file.write_text(f'{head},\n"codes": {{\n' + ",\n".join(lines) + "\n}\n}\n")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="dgx-music-golden-") as home:
        # The libraries read the variables when they are imported, which has happened in this process.
        command = "from tests.support.sound_codes import main; main()"
        environment = os.environ | {"HF_HOME": home, "HF_HUB_OFFLINE": "1"}
        subprocess.run([sys.executable, "-c", command], env=environment, check=True)
