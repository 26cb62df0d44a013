"""Greedy codes that audiocraft's AudioGen generates, stored in `sound_codes.json`; see `golden_codes`.

    python -m tests.support.sound_codes

regenerates them. It needs audiocraft (`make setup-audiocraft`).
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from torch import Tensor

from generation_service.models.musicgen.checkpoints.checkpoint import COMPRESSION_FILE, LM_FILE
from generation_service.models.musicgen.checkpoints.checkpoint_reader import read_checkpoint
from tests.support.golden_codes import checksum

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


def reference_codes(home: Path) -> tuple[dict[str, float], dict[str, list[Tensor]]]:
    """Writes the models to a folder, and has audiocraft generate all codes. Returns the weights' checksums as well."""
    from tests.support.sound_checkpoints import T5_LARGE, write_audiogen, write_t5_large

    write_t5_large(home)
    folder = home / "audiogen"
    write_audiogen(folder)
    audiogen = AudioGen(folder)
    codes = {
        f"audiogen/{name}": [audiogen.codes(prompt, frames) for prompt, frames, _ in requests]
        for name, requests in (("sounds", SOUNDS), ("windows", WINDOWS))
    }
    return checksums_of(folder, T5_LARGE), codes


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
    temporary = tempfile.mkdtemp(prefix="dgx-music-golden-")
    os.environ |= {"HF_HOME": temporary, "HF_HUB_OFFLINE": "1"}
    try:
        main()
    finally:
        shutil.rmtree(temporary)
