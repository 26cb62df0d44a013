"""What audiocraft makes of melodies and styles: prefixes, and greedy codes with them, stored in
`golden_prefixes.json` for machines without audiocraft.

    python -m tests.support.golden_prefixes

regenerates them. It needs audiocraft with demucs's package, whose weights it replaces: the melody is that of the whole
mix. audiocraft 1.3.0 has no MusicGen-Style, so `_Style` puts its conditioner together from audiocraft's modules as in
its later versions. The models are those of `tests.support.prefix_checkpoints`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from generation_service.models.base import FloatArray
from generation_service.models.musicgen.checkpoints.checkpoint import LM_FILE
from generation_service.models.musicgen.checkpoints.checkpoint_reader import read_checkpoint
from tests.support.golden_codes import FRAME_RATE_HZ, HOP, RATE_HZ, STRIDE, WINDOW, checksum, clip, t5_checksum

FILE = Path(__file__).with_suffix(".json")
MELODIES = (30, 90, WINDOW, 1)
"""Frames of codes of each clip whose prefix is stored, the last one too short for a window of the STFT."""
MELODY_CODES = (
    # prompt, new frames, frames of the melody, joins at step
    ("calm piano", 40, 30, 0),
    ("80s synthwave", 25, 90, 3),
    ("", 20, 45, 6),
    ("lofi", 25, 0, 6),
    ("", 12, 0, 9),
    ("an energetic drum and bass track at 174 bpm, with a deep sub and chopped breaks", 130, 45, 13),
    ("x", WINDOW + 1, 90, 20),
)
STYLES = ((3.0, 0), (2.0, 1), (4.5, 4))
"""Seconds and quantizers, 0 for the default."""
STYLE_CODES = (
    # prompt, new frames, text guidance
    ("calm piano", 30, 5.0),
    ("lofi", 12, 1.0),
    ("", 15, 5.0),
)
GUIDANCE = 3.0


def stored(name: str) -> list[Tensor]:
    """The tensors under a name such as "mono/melody/codes"."""
    return [torch.tensor(values) for values in json.loads(FILE.read_text())["values"][name]]


def checksums(folder: Path) -> dict[str, float]:
    return {folder.name: checksum(read_checkpoint(folder).map_tensors()), "t5": t5_checksum()}


def check_weights(folder: Path) -> None:
    """Raises AssertionError if the stored values were generated with other weights."""
    expected = json.loads(FILE.read_text())["weights"]
    for part, found in checksums(folder).items():
        assert abs(found - expected[part]) <= 1e-7 * expected[part], (
            f"the random weights {part} have the checksum {found}, but the values were generated with "
            f"{expected[part]}; run python -m tests.support.golden_prefixes"
        )


def melody_clip(channels: int, frames: int) -> FloatArray:
    """Notes of 0.4 s each, [frames, channels]: a clip whose chroma changes."""
    chord = clip(channels, frames * HOP)
    seconds = torch.arange(frames * HOP) / RATE_HZ
    pitches = torch.tensor([261.6, 329.6, 392.0, 440.0, 311.1])[(seconds / 0.4).long() % 5]
    notes = torch.sin(2 * torch.pi * torch.cumsum(pitches / RATE_HZ, 0)).numpy()
    return (0.2 * chord + 0.5 * notes[:, None]).astype("float32")


def style_clip(seconds: float) -> FloatArray:
    return melody_clip(1, int(seconds * FRAME_RATE_HZ))


class _Melody:
    """audiocraft's own model, with greedy decoding."""

    def __init__(self, folder: Path) -> None:
        from audiocraft.models import MusicGen, loaders
        from audiocraft.modules import conditioners
        from demucs import pretrained

        stub = mock.MagicMock(sources=["drums", "bass", "other", "vocals"])
        stub.to.return_value = stub
        with mock.patch.object(pretrained, "get_model", return_value=stub):
            lm = loaders.load_lm_model(str(folder))
        self.conditioner: Any = lm.condition_provider.conditioners["self_wav"]
        conditioners.ChromaStemConditioner._get_stemmed_wav = lambda _, wav, __: wav
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            codec = loaders.load_compression_model(str(folder))
        self.conditioner.match_len_on_eval = True  # As in `MusicGen.get_pretrained`.
        self.conditioner._use_masking = False
        lm.cfg.dataset.segment_duration = 30  # The constructor checks its stride.
        self._musicgen = MusicGen("tiny", codec, lm)
        self._musicgen.max_duration = WINDOW / FRAME_RATE_HZ
        self._channels = 1 if lm.num_codebooks == 4 else 2

    def prefixes(self) -> list[Tensor]:
        from audiocraft.modules.conditioners import WavCondition

        wavs = [
            torch.from_numpy(melody_clip(self._channels, frames).T.copy()).mean(0)[None, None] for frames in MELODIES
        ]
        with torch.no_grad():
            return [
                self.conditioner(WavCondition(wav, torch.tensor([wav.shape[-1]]), [RATE_HZ], [None]))[0][0]
                for wav in [*wavs, torch.zeros(1, 1, 1)]
            ]

    def codes(self) -> list[Tensor]:
        results = []
        for prompt, frames, melody, _ in MELODY_CODES:
            seconds = (frames + 0.5) / FRAME_RATE_HZ  # audiocraft rounds down.
            self._musicgen.set_generation_params(
                use_sampling=False, duration=seconds, extend_stride=STRIDE / FRAME_RATE_HZ, cfg_coef=GUIDANCE
            )
            wav = torch.from_numpy(melody_clip(self._channels, melody).T.copy()) if melody else None
            generated = self._musicgen.generate_with_chroma([prompt or None], [wav], RATE_HZ, return_tokens=True)
            results.append(generated[1][0])
        return results


class _Style:
    """The style conditioner, and greedy decoding with double guidance, which computes all positions in each step."""

    def __init__(self, folder: Path) -> None:
        from audiocraft.models import builders
        from audiocraft.modules.transformer import StreamingTransformer
        from audiocraft.quantization import ResidualVectorQuantizer
        from omegaconf import OmegaConf
        from transformers import HubertConfig, HubertModel

        from tests.support.prefix_checkpoints import MERT_FEATURES, STYLE_CODEBOOK_SIZE, STYLE_CODEBOOKS, STYLE_DIM

        package = torch.load(folder / LM_FILE)
        prefix = "condition_provider.conditioners.self_wav."
        weights = package["best_state"]
        state = {name.removeprefix(prefix): own for name, own in weights.items() if name.startswith(prefix)}
        config = OmegaConf.create(package["xp.cfg"])
        config.device = "cpu"
        OmegaConf.resolve(config)
        del config.conditioners["self_wav"], config.conditioners["args"]
        self._lm = builders.get_lm_model(config)
        self._lm.load_state_dict({k: v for k, v in weights.items() if not k.startswith(prefix)})
        self._lm.eval()

        def part(module: Any, name: str) -> Any:
            module.load_state_dict({k.removeprefix(name): v for k, v in state.items() if k.startswith(name)})
            return module.eval()

        snapshot = next((Path(os.environ["HF_HOME"]) / "hub/models--m-a-p--MERT-v1-95M/snapshots").iterdir())
        fields = json.loads((snapshot / "config.json").read_text())
        self._mert: Any = HubertModel(HubertConfig.from_dict(fields))
        self._mert.eval()
        hubert = {
            name.replace("weight_g", "parametrizations.weight.original0").replace(
                "weight_v", "parametrizations.weight.original1"
            ): tensor
            for name, tensor in torch.load(snapshot / "pytorch_model.bin").items()
        }
        self._mert.load_state_dict(hubert)
        self._embed = part(torch.nn.Linear(MERT_FEATURES, STYLE_DIM), "embed.")
        self._transformer = part(
            StreamingTransformer(
                STYLE_DIM,
                8,
                4,
                4 * STYLE_DIM,
                memory_efficient=True,
                activation="gelu",
                norm_first=True,
                causal=False,
                layer_scale=None,
                bias_ff=False,
                bias_attn=False,
            ),
            "transformer.",
        )
        self._batch_norm = part(torch.nn.BatchNorm1d(STYLE_DIM, affine=False), "batch_norm.")
        self._rvq = part(
            ResidualVectorQuantizer(STYLE_DIM, n_q=STYLE_CODEBOOKS, q_dropout=True, bins=STYLE_CODEBOOK_SIZE), "rvq."
        )
        self._project = part(torch.nn.Linear(STYLE_DIM, self._lm.dim), "output_proj.")

    @torch.no_grad()
    def prefix(self, seconds: float, quantizers: int) -> Tensor:
        from audiocraft.data.audio_utils import convert_audio

        from tests.support.prefix_checkpoints import STYLE_DEFAULT_CODEBOOKS

        wav = torch.from_numpy(style_clip(seconds).T.copy())[None]
        wav = convert_audio(wav, from_rate=RATE_HZ, to_rate=24000, to_channels=1)
        x = self._transformer(self._embed(self._mert(wav.squeeze(-2)).last_hidden_state))
        x = self._batch_norm(x.transpose(1, 2)).transpose(1, 2)
        self._rvq.set_num_codebooks(quantizers or STYLE_DEFAULT_CODEBOOKS)
        x = self._rvq(x.transpose(1, 2), frame_rate=1.0).x.transpose(1, 2)
        prefix: Tensor = self._project(x[:, ::15])[0]
        return prefix

    @torch.no_grad()
    def codes(self, prompt: str, frames: int, text_guidance: float) -> Tensor:
        from audiocraft.modules.conditioners import ConditioningAttributes

        provider = self._lm.condition_provider
        both = [ConditioningAttributes(text={"description": text}) for text in (prompt or None, None)]
        text, null = provider(provider.tokenize(both))["description"][0]  # each [T, dim]
        style = self.prefix(*STYLES[0])
        rows = [(style, text), (style, null), (torch.zeros_like(style), null)]
        conditions = {
            "self_wav": (torch.stack([own for own, _ in rows]), torch.ones(3, len(style))),
            "description": (torch.stack([own for _, own in rows]), torch.ones(3, len(text))),
        }
        self._lm.fuser.cond2fuse["self_wav"] = "prepend"
        pattern = self._lm.pattern_provider.get_pattern(frames)
        empty = torch.full((1, self._lm.num_codebooks, frames), -1)
        sequence, _, mask = pattern.build_pattern_sequence(empty, self._lm.special_token_id)
        for step in range(1, sequence.shape[-1]):
            # The text comes first, so that the style is prepended to it.
            order = {name: conditions[name] for name in ("description", "self_wav")}
            logits = self._lm(sequence[..., :step].repeat(3, 1, 1), [], order)[:, :, -1]
            both_, styled, unconditional = logits
            guided = unconditional + GUIDANCE * (styled + text_guidance * (both_ - styled) - unconditional)
            newest = torch.where(mask[:, step], guided.argmax(-1), self._lm.special_token_id)
            sequence[0, :, step] = newest
        codes: Tensor = pattern.revert_pattern_sequence(sequence, special_token=-1)[0][0]
        return codes


def main() -> None:
    from tests.support.checkpoints import write_t5
    from tests.support.prefix_checkpoints import write_melody_checkpoint, write_mert, write_style_checkpoint

    home = Path(os.environ["HF_HOME"])
    write_t5(home)
    write_mert(home)
    weights: dict[str, float] = {}
    values: dict[str, Sequence[Tensor]] = {}
    for name in ("melody", "stereo-melody"):
        write_melody_checkpoint(home / name, stereo=name != "melody")
        weights |= checksums(home / name)
        melody = _Melody(home / name)
        values |= {f"{name}/prefixes": melody.prefixes(), f"{name}/codes": melody.codes()}
    write_style_checkpoint(home / "style")
    weights |= checksums(home / "style")
    style = _Style(home / "style")
    values["style/prefixes"] = [style.prefix(*own) for own in STYLES]
    values["style/codes"] = [style.codes(*own) for own in STYLE_CODES]
    versions = {name: metadata.version(name) for name in ("audiocraft", "torch", "transformers")}
    lines = (f'"{name}": [\n' + ",\n".join(map(_dump, own)) + "\n]" for name, own in values.items())
    head = json.dumps({**versions, "weights": weights}, indent=1).removesuffix("\n}")
    FILE.write_text(f'{head},\n"values": {{\n' + ",\n".join(lines) + "\n}\n}\n")


def _dump(values: Tensor) -> str:
    rows = values.tolist()
    if values.is_floating_point():
        rows = [[float(f"{value:.7g}") for value in row] for row in rows]
    return json.dumps(rows, separators=(",", ":"))


if __name__ == "__main__":
    if "--here" in sys.argv:
        main()
    else:
        # huggingface_hub reads its environment when it is imported.
        with tempfile.TemporaryDirectory(prefix="dgx-music-golden-") as home:
            command = [sys.executable, "-m", "tests.support.golden_prefixes", "--here"]
            subprocess.run(command, env=os.environ | {"HF_HOME": home, "HF_HUB_OFFLINE": "1"}, check=True)
