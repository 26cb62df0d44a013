"""Greedy codes that audiocraft generates, stored in `golden_codes.json` for machines without audiocraft.

    python -m tests.support.golden_codes

regenerates them. It needs audiocraft (`make setup-audiocraft`), 2 GB of memory and 1 GB in the temporary folder.
audiocraft generates each request unbatched. The models are those of `tests.support.checkpoints`. Their random weights
depend on the seed and on torch's version, so a checksum of the weights is stored with the codes.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from generation_service.models.base import FloatArray
from generation_service.models.musicgen.checkpoints.checkpoint import COMPRESSION_FILE, LM_FILE
from generation_service.models.musicgen.checkpoints.checkpoint_reader import read_checkpoint

FILE = Path(__file__).with_suffix(".json")
HOP = 640
RATE_HZ = 32_000
FRAME_RATE_HZ = 50
WINDOW, STRIDE = 60, 36
"""Frames of codes in `WINDOWS` and `CONTINUATIONS`, instead of 1500 and 900."""

PROMPTS = (
    # prompt, frames, joins at step
    ("calm piano", 40, 0),
    ("an energetic drum and bass track at 174 bpm, with a deep sub and chopped breaks", 70, 0),
    ("lofi", 12, 5),
    ("", 20, 6),
    ("a string quartet, slow, in a large hall", 33, 6),
    ("80s synthwave", 50, 13),
    ("x", 1, 20),
    ("solo cello with long notes and much vibrato; close and warm", 25, 30),
)
WIDE_PROMPTS = (
    ("calm piano", 12, 0),
    ("80s synthwave, fast", 9, 2),
    ("", 6, 5),
    ("lofi", 1, 5),
    ("a string quartet, slow, in a large hall", 8, 6),
    ("an energetic drum and bass track at 174 bpm, with a deep sub and chopped breaks", 10, 6),
    ("x", 3, 7),
    ("solo cello with long notes and much vibrato; close and warm", 7, 8),
)
"""The same for the model of the shape `WIDE`."""
WINDOWS = (
    # prompt, frames, joins at step
    ("calm piano", 205, 0),
    ("an energetic drum and bass track at 174 bpm, with a deep sub and chopped breaks", WINDOW, 0),
    ("lofi", WINDOW + 1, 7),
    ("", WINDOW + STRIDE, 20),
    ("80s synthwave", WINDOW + STRIDE + 1, 90),
)
CONTINUATIONS = (
    # frames of the clip, new frames, frames of the clip that are read, joins at step
    (10, 20, 10, 0),
    (1, 1, 1, 0),
    (40, 20, 40, 3),
    (90, 20, 40, 11),
    (90, 50, WINDOW - STRIDE, 25),
    (30, 130, WINDOW - STRIDE, 40),
    (5, WINDOW, 5, 70),
)
CONTINUED_PROMPT = "calm piano"
NEGATIVES = (
    # prompt, negative prompt, frames, joins at step
    ("calm piano", "an energetic drum and bass track at 174 bpm, with a deep sub and chopped breaks", 40, 0),
    ("80s synthwave, with a long solo for the electric guitar", "lofi", 33, 3),
    ("", "x", 20, 3),
    ("a string quartet, slow, in a large hall", "", 25, 8),
)


def golden(name: str, weights: Mapping[str, float], file: Path = FILE) -> list[Tensor]:
    """The codes stored under a name such as "mono/prompts": int64 [K, frames] for each request.

    `weights` has the `checksum` of each part of the model under test. Raises AssertionError if the codes were generated
    with other weights.
    """
    stored = json.loads(file.read_text())
    for part, found in weights.items():
        expected = stored["weights"][part]
        assert abs(found - expected) <= 1e-7 * expected, (
            f"the random weights {part} have the checksum {found}, but the codes were generated with {expected} (torch "
            f"{stored['torch']}, transformers {stored['transformers']}); run python -m tests.support.{file.stem}"
        )
    return [torch.tensor(codes) for codes in stored["codes"][name]]


def checksum(state: Mapping[str, Tensor]) -> float:
    """Detects random weights of another seed, but tolerates another processor's rounding."""
    return sum(float(tensor.abs().sum(dtype=torch.float64)) for tensor in state.values() if tensor.is_floating_point())


def checksums_of(folder: Path) -> dict[str, float]:
    """The checksums of the model in a folder, under the folder's name, and of the text encoder."""
    lm, codec = (read_checkpoint(folder / file).map_tensors() for file in (LM_FILE, COMPRESSION_FILE))
    return {f"{folder.name}/lm": checksum(lm), f"{folder.name}/codec": checksum(codec), "t5": t5_checksum()}


def t5_checksum() -> float:
    """The checksum of the text encoder in the Hugging Face cache."""
    from safetensors.torch import load_file

    from tests.support.checkpoints import T5_REVISION

    snapshot = Path(os.environ["HF_HOME"]) / "hub/models--t5-base/snapshots" / T5_REVISION
    return checksum(load_file(snapshot / "model.safetensors"))


def clip(channels: int, frames: int) -> FloatArray:
    """Chords with noise, to be continued: [frames, channels]."""
    random = np.random.default_rng(1)
    seconds = np.arange(frames)[:, None, None] / RATE_HZ
    pitches = np.array([[110.0, 277.2, 415.3], [164.8, 220.0, 554.4]])[:channels]
    tones = np.sin(2 * np.pi * pitches * seconds).sum(-1) / 6
    return np.asarray(tones + random.normal(0, 0.02, tones.shape), np.float32)


class Audiocraft:
    """audiocraft's own model, loaded from a folder, with greedy decoding."""

    def __init__(self, folder: Path) -> None:
        from audiocraft.models import loaders

        self._folder = folder
        self._loaders = loaders
        self._lm = loaders.load_lm_model(str(folder))

    def prompts(self, prompts: Sequence[tuple[str, int, int]]) -> list[Tensor]:
        """Codes of each prompt, [K, frames], from the language model alone."""
        from audiocraft.modules.conditioners import ConditioningAttributes

        return [
            self._lm.generate(
                conditions=[ConditioningAttributes(text={"description": prompt or None})],
                max_gen_len=frames,
                use_sampling=False,
            )[0]
            for prompt, frames, _ in prompts
        ]

    def negatives(self) -> list[Tensor]:
        """Codes of each prompt, guided away from another instead of from none. The two have a batch each, as padded
        text would change the result."""
        from audiocraft.models import lm
        from audiocraft.modules.conditioners import ConditioningAttributes

        def attributes(prompt: str) -> list[Any]:
            return [ConditioningAttributes(text={"description": prompt or None})]

        codes = []
        for prompt, negative, frames, _ in NEGATIVES:
            null_conditions = attributes(negative)
            with mock.patch.object(lm, "ClassifierFreeGuidanceDropout") as dropout:
                dropout.return_value.return_value = null_conditions
                codes.append(
                    self._lm.generate(
                        conditions=attributes(prompt), max_gen_len=frames, use_sampling=False, two_step_cfg=True
                    )[0]
                )
        return codes

    def windows(self) -> list[Tensor]:
        return [self._codes(prompt, frames) for prompt, frames, _ in WINDOWS]

    def continuations(self) -> list[Tensor]:
        channels = self._lm.num_codebooks // 4
        continued = []
        for length, new, read, _ in CONTINUATIONS:
            end = clip(channels, length * HOP)[-read * HOP :]
            continued.append(self._codes(CONTINUED_PROMPT, read + new, end))
        return continued

    @functools.cached_property
    def _musicgen(self) -> Any:
        from audiocraft.models import MusicGen

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`torch.nn.utils.weight_norm` is deprecated", FutureWarning)
            codec = self._loaders.load_compression_model(str(self._folder))
        musicgen = MusicGen("tiny", codec, self._lm)
        musicgen.max_duration = WINDOW / FRAME_RATE_HZ  # Set last: the constructor checks its stride.
        return musicgen

    def _codes(self, prompt: str, frames: int, clip: FloatArray | None = None) -> Tensor:
        """[K, frames], beginning with the clip if there is one. clip: [n, channels]."""
        seconds = (frames + 0.5) / FRAME_RATE_HZ  # audiocraft rounds down.
        self._musicgen.set_generation_params(use_sampling=False, duration=seconds, extend_stride=STRIDE / FRAME_RATE_HZ)
        if clip is None:
            codes: Tensor = self._musicgen.generate([prompt], return_tokens=True)[1]
        else:
            audio = torch.from_numpy(clip.T.copy())[None]
            codes = self._musicgen.generate_continuation(audio, RATE_HZ, [prompt], return_tokens=True)[1]
        return codes[0]


def main() -> None:
    from tests.support.checkpoints import WIDE, write_checkpoint, write_lm, write_t5

    home = Path(os.environ["HF_HOME"])
    write_t5(home)
    weights: dict[str, float] = {}
    codes: dict[str, list[Tensor]] = {}
    for name in ("mono", "stereo"):
        folder = home / name
        write_checkpoint(folder, stereo=name == "stereo")
        model = Audiocraft(folder)
        weights |= checksums_of(folder)
        codes[f"{name}/prompts"] = model.prompts(PROMPTS)
        codes[f"{name}/negatives"] = model.negatives()
        codes[f"{name}/windows"] = model.windows()
        codes[f"{name}/continuations"] = model.continuations()
    folder = home / "wide"
    write_lm(folder, WIDE)
    weights["wide/lm"] = checksum(read_checkpoint(folder / LM_FILE).map_tensors())
    codes["wide/prompts"] = Audiocraft(folder).prompts(WIDE_PROMPTS)
    versions = {name: metadata.version(name) for name in ("audiocraft", "torch", "transformers")}
    lines = (
        f'"{name}": [\n' + ",\n".join(json.dumps(one.tolist(), separators=(",", ":")) for one in requests) + "\n]"
        for name, requests in codes.items()
    )
    head = json.dumps({**versions, "weights": weights}, indent=1).removesuffix("\n}")
    FILE.write_text(f'{head},\n"codes": {{\n' + ",\n".join(lines) + "\n}\n}\n")


if __name__ == "__main__":
    if "HF_HUB_OFFLINE" in os.environ:
        main()
    else:  # huggingface_hub reads its settings when it is imported.
        with tempfile.TemporaryDirectory(prefix="dgx-music-golden-") as home:
            environment = {**os.environ, "HF_HOME": home, "HF_HUB_OFFLINE": "1"}
            subprocess.run([sys.executable, "-m", "tests.support.golden_codes"], env=environment, check=True)
