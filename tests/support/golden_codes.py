"""Greedy codes as audiocraft makes them, kept in `golden_codes.json` for machines without audiocraft.

    python -m tests.support.golden_codes

writes them anew, which needs audiocraft (`make setup-audiocraft`), 4 GB of memory and 2 GB in the temporary folder.
audiocraft makes each request unbatched. The models are those of `tests.support.checkpoints`, whose random weights
depend on the seed and on torch's version; what they come to is kept beside the codes.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generation_service.models.base import FloatArray
from generation_service.models.musicgen.checkpoints.audiocraft_file import COMPRESSION_FILE, LM_FILE, read_checkpoint

FILE = Path(__file__).with_suffix(".json")
HOP = 640
RATE_HZ = 32_000
FRAME_RATE_HZ = 50
WINDOW, STRIDE = 60, 36
"""Frames of codes, instead of 1500 and 900, in `WINDOWS` and `CONTINUATIONS`."""

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
SMALL_PROMPTS = (
    ("calm piano", 12, 0),
    ("80s synthwave, fast", 9, 2),
    ("", 6, 5),
    ("lofi", 1, 5),
    ("a string quartet, slow, in a large hall", 8, 6),
    ("an energetic drum and bass track at 174 bpm, with a deep sub and chopped breaks", 10, 6),
    ("x", 3, 7),
    ("solo cello with long notes and much vibrato; close and warm", 7, 8),
)
"""Likewise, for the model of musicgen-small's shape."""
WINDOWS = (
    # prompt, frames, joins at step
    ("calm piano", 205, 0),
    ("an energetic drum and bass track at 174 bpm, with a deep sub and chopped breaks", WINDOW, 0),
    ("lofi", WINDOW + 1, 7),
    ("", WINDOW + STRIDE, 20),
    ("80s synthwave", WINDOW + STRIDE + 1, 90),
)
CONTINUATIONS = (
    # clip, new, of the clip read (frames of codes), joins at step
    (10, 20, 10, 0),
    (1, 1, 1, 0),
    (40, 20, 40, 3),
    (90, 20, 40, 11),
    (90, 50, WINDOW - STRIDE, 25),
    (30, 130, WINDOW - STRIDE, 40),
    (5, WINDOW, 5, 70),
)
CONTINUED_PROMPT = "calm piano"


def golden(name: str, weights: Mapping[str, float]) -> list[Tensor]:
    """The codes kept under this name, e.g. "mono/prompts": int64 [K, frames] of each request.

    `weights` says which those at hand are: the sums of `total` by part. Other ones than the codes were made with are
    an AssertionError.
    """
    kept = json.loads(FILE.read_text())
    for part, found in weights.items():
        made_with = kept["weights"][part]
        assert abs(found - made_with) <= 1e-7 * made_with, (
            f"the random weights {part} come to {found}, and to {made_with} where the codes were made, with torch "
            f"{kept['torch']} and transformers {kept['transformers']}: python -m tests.support.golden_codes"
        )
    return [torch.tensor(codes) for codes in kept["codes"][name]]


def total(state: Mapping[str, Tensor]) -> float:
    """Tells random weights of another seed apart, and does not mind another processor's last bit."""
    return sum(float(tensor.abs().sum(dtype=torch.float64)) for tensor in state.values() if tensor.is_floating_point())


def weights_in(folder: Path) -> dict[str, float]:
    """Of the model in the folder, by the folder's name, and of the text encoder."""
    lm, codec = (read_checkpoint(folder / file).state() for file in (LM_FILE, COMPRESSION_FILE))
    return {f"{folder.name}/lm": total(lm), f"{folder.name}/codec": total(codec), "t5": total_of_t5()}


def total_of_t5() -> float:
    """Of the text encoder in the Hugging Face cache."""
    from safetensors.torch import load_file

    from tests.support.checkpoints import T5_REVISION

    snapshot = Path(os.environ["HF_HOME"]) / "hub/models--t5-base/snapshots" / T5_REVISION
    return total(load_file(snapshot / "model.safetensors"))


def clip(channels: int, frames: int) -> FloatArray:
    """Chords with noise: [frames, channels]."""
    random = np.random.default_rng(1)
    seconds = np.arange(frames)[:, None, None] / RATE_HZ
    pitches = np.array([[110.0, 277.2, 415.3], [164.8, 220.0, 554.4]])[:channels]
    tones = np.sin(2 * np.pi * pitches * seconds).sum(-1) / 6
    return np.asarray(tones + random.normal(0, 0.02, tones.shape), np.float32)


class Audiocraft:
    """audiocraft's own model of a folder, greedy."""

    def __init__(self, folder: Path) -> None:
        from audiocraft.models import loaders

        self._folder = folder
        self._loaders = loaders
        self._lm = loaders.load_lm_model(str(folder))

    def prompts(self, prompts: Sequence[tuple[str, int, int]]) -> list[Tensor]:
        """Codes of each, [K, frames], by the language model alone."""
        from audiocraft.modules.conditioners import ConditioningAttributes

        return [
            self._lm.generate(
                conditions=[ConditioningAttributes(text={"description": prompt or None})],
                max_gen_len=frames,
                use_sampling=False,
            )[0]
            for prompt, frames, _ in prompts
        ]

    def windows(self) -> list[Tensor]:
        return [self._codes(prompt, frames) for prompt, frames, _ in WINDOWS]

    def continuations(self) -> list[Tensor]:
        channels = self._lm.num_codebooks // 4
        made = []
        for length, new, read, _ in CONTINUATIONS:
            end = clip(channels, length * HOP)[-read * HOP :]
            made.append(self._codes(CONTINUED_PROMPT, read + new, end))
        return made

    @functools.cached_property
    def _musicgen(self) -> Any:
        from audiocraft.models import MusicGen

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`torch.nn.utils.weight_norm` is deprecated", FutureWarning)
            codec = self._loaders.load_compression_model(str(self._folder))
        musicgen = MusicGen("tiny", codec, self._lm)
        musicgen.max_duration = WINDOW / FRAME_RATE_HZ  # To be given only after its default stride has been checked.
        return musicgen

    def _codes(self, prompt: str, frames: int, heard: FloatArray | None = None) -> Tensor:
        """[K, frames], what was heard first. heard: [n, channels]."""
        seconds = (frames + 0.5) / FRAME_RATE_HZ  # It rounds down.
        self._musicgen.set_generation_params(use_sampling=False, duration=seconds, extend_stride=STRIDE / FRAME_RATE_HZ)
        if heard is None:
            codes: Tensor = self._musicgen.generate([prompt], return_tokens=True)[1]
        else:
            audio = torch.from_numpy(heard.T.copy())[None]
            codes = self._musicgen.generate_continuation(audio, RATE_HZ, [prompt], return_tokens=True)[1]
        return codes[0]


def main() -> None:
    from tests.support.checkpoints import SMALL, write_checkpoint, write_lm, write_t5

    home = Path(os.environ["HF_HOME"])
    write_t5(home)
    weights: dict[str, float] = {}
    codes: dict[str, list[Tensor]] = {}
    for name in ("mono", "stereo"):
        folder = home / name
        write_checkpoint(folder, stereo=name == "stereo")
        model = Audiocraft(folder)
        weights |= weights_in(folder)
        codes[f"{name}/prompts"] = model.prompts(PROMPTS)
        codes[f"{name}/windows"] = model.windows()
        codes[f"{name}/continuations"] = model.continuations()
    for name in ("small-mono", "small-stereo"):
        folder = home / name
        path = write_lm(folder, SMALL, stereo=name == "small-stereo")
        weights[f"{name}/lm"] = total(read_checkpoint(path).state())
        codes[f"{name}/prompts"] = Audiocraft(folder).prompts(SMALL_PROMPTS)
        path.unlink()
    versions = {name: metadata.version(name) for name in ("audiocraft", "torch", "transformers")}
    lines = (
        f'"{name}": [\n' + ",\n".join(json.dumps(one.tolist(), separators=(",", ":")) for one in requests) + "\n]"
        for name, requests in codes.items()
    )
    head = json.dumps({**versions, "weights": weights}, indent=1).removesuffix("\n}")
    FILE.write_text(f'{head},\n"codes": {{\n' + ",\n".join(lines) + "\n}\n}\n")


if __name__ == "__main__":
    temporary = tempfile.mkdtemp(prefix="dgx-music-golden-")
    os.environ |= {"HF_HOME": temporary, "HF_HUB_OFFLINE": "1"}
    try:
        main()
    finally:
        shutil.rmtree(temporary)
