"""Writes MusicGen with random weights as transformers saves it, and generates with transformers' own model."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generation_service.models.base import FloatArray
from tests.support.checkpoints import TINY, Shape, write_tokenizer

T5_DIM = 48
"""The width of the text encoder, which in transformers' layout may have any."""
WINDOW_FRAMES = 1500
MAX_DELAY = 3
"""How many steps the last codebook lags behind, in mono and in stereo."""


def write_transformers_checkpoint(
    folder: Path,
    *,
    stereo: bool = False,
    melody: bool = False,
    shape: Shape = TINY,
    shard_size: str = "1GB",
    seed: int = 0,
) -> Path:
    """Writes a folder by `save_pretrained` of the model and of its processor's parts."""
    import transformers
    from transformers import EncodecConfig, EncodecFeatureExtractor, T5Config

    kind = "MusicgenMelody" if melody else "Musicgen"
    library: Any = transformers
    own = {"chroma_length": MELODY_LENGTH} if melody else {}

    with _quiet(), torch.random.fork_rng():
        torch.manual_seed(seed)
        config = getattr(library, f"{kind}Config")(
            **own,
            text_encoder=T5Config(
                vocab_size=128, d_model=T5_DIM, d_kv=24, d_ff=96, num_layers=1, num_heads=2, pad_token_id=0
            ),
            audio_encoder=EncodecConfig(
                sampling_rate=32_000,
                audio_channels=1,
                use_causal_conv=False,
                num_filters=4,
                upsampling_ratios=[8, 5, 4, 4],
                codebook_size=shape.card,
                hidden_size=16,
                target_bandwidths=[1.2],
                use_conv_shortcut=False,
                pad_mode="constant",
            ),
            decoder=getattr(library, f"{kind}DecoderConfig")(
                vocab_size=shape.card,
                num_hidden_layers=shape.num_layers,
                ffn_dim=4 * shape.dim,
                num_attention_heads=shape.num_heads,
                hidden_size=shape.dim,
                num_codebooks=8 if stereo else 4,
                audio_channels=2 if stereo else 1,
                pad_token_id=shape.card,
                bos_token_id=shape.card,
            ),
        )
        model: Any = getattr(library, f"{kind}ForConditionalGeneration")(config)
        for name, weight in model.named_parameters():
            # By its own initialization every code would be as likely as any other, and every prompt encoded alike.
            if name.startswith(("decoder", "enc_to_dec_proj", "audio_enc_to_dec_proj")) and weight.dim() == 2:
                torch.nn.init.normal_(weight, std=1.0 if "embed" in name else weight.shape[-1] ** -0.5)
        torch.nn.init.normal_(model.text_encoder.shared.weight)
        for layer in model.audio_encoder.quantizer.layers:
            torch.nn.init.normal_(layer.codebook.embed)
        model.generation_config.max_length = WINDOW_FRAMES
        model.generation_config.decoder_start_token_id = shape.card
        model.save_pretrained(folder, max_shard_size=shard_size)
        write_tokenizer(folder)
        if melody:
            # Its class needs torchaudio, so this is what its `save_pretrained` writes, without what nothing reads.
            (folder / "preprocessor_config.json").write_text(json.dumps(MELODY_PREPROCESSOR))
        else:
            EncodecFeatureExtractor(feature_size=2 if stereo else 1, sampling_rate=32_000).save_pretrained(folder)
    return folder


MELODY_LENGTH = 12
MELODY_PREPROCESSOR = {
    "chunk_length": 1,
    "feature_extractor_type": "MusicgenMelodyFeatureExtractor",
    "feature_size": 12,
    "hop_length": 2048,
    "n_fft": 8192,
    "n_samples": 32_000,
    "padding_side": "right",
    "padding_value": 0.0,
    "return_attention_mask": False,
    "sampling_rate": 32_000,
    "stem_indices": [3, 2],
}


@dataclass(frozen=True, slots=True)
class Generated:
    """What transformers generated for a prompt."""

    codes: Tensor
    """int64 [K, frames]"""
    samples: FloatArray
    """[n, channels]"""


def generate_with_transformers(
    folder: Path,
    prompts: Sequence[str],
    frames: int,
    adapt: Callable[[Any], Any] = lambda model: model,
    melodies: Sequence[Tensor | None] = (),
) -> list[Generated]:
    """Greedy codes and samples of transformers' model, or what `adapt` makes of it, each prompt by itself.

    melodies: for a melody model, the features of each prompt's melody, [n, chroma], or None.
    """
    import transformers
    from transformers import T5Tokenizer

    results = []
    library: Any = transformers
    kind = "MusicgenMelodyForConditionalGeneration" if melodies else "MusicgenForConditionalGeneration"
    with _quiet(), torch.inference_mode():
        model: Any = adapt(getattr(library, kind).from_pretrained(folder))
        tokenizer = T5Tokenizer.from_pretrained(folder)
        decoded: list[Tensor] = []
        decode = model.audio_encoder.decode

        def watch(audio_codes: Tensor, *arguments: Any, **options: Any) -> Any:
            decoded.append(audio_codes.clone())
            return decode(audio_codes, *arguments, **options)

        model.audio_encoder.decode = watch
        for prompt, features in zip_longest(prompts, melodies):
            decoded.clear()
            inputs = dict(tokenizer([prompt], return_tensors="pt"))
            if features is not None:
                inputs["input_features"] = features[None]
            audio = model.generate(**inputs, do_sample=False, guidance_scale=3.0, max_new_tokens=frames + MAX_DELAY)
            sides = [codes[0, 0] for codes in decoded]  # each [K of a channel, n]
            codes = sides[0] if len(sides) == 1 else torch.stack(sides, 1).flatten(0, 1)
            results.append(Generated(codes, np.ascontiguousarray(audio[0].T.numpy())))
    return results


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    from transformers.utils import logging

    library: Any = logging
    verbosity = library.get_verbosity()
    library.set_verbosity_error()
    library.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        library.set_verbosity(verbosity)
