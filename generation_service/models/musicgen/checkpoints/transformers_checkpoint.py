"""A folder that transformers' `save_pretrained` wrote for MusicGen: the language model, T5 and EnCodec in one set of
safetensors, single or sharded, and beside it `config.json` and the tokenizer.

Source: transformers 5.23, `models/musicgen` and `models/musicgen_melody`. The configuration is translated to
audiocraft's, so that `parse_lm_config` has the last word on it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from generation_service.models.musicgen.checkpoints.checkpoint import (
    Checkpoint,
    StoredNetwork,
    StoredTextEncoder,
    invalid_checkpoint,
    missing_checkpoint,
)
from generation_service.models.musicgen.checkpoints.config_fields import ConfigFields
from generation_service.models.musicgen.checkpoints.hub_networks import CONFIG_FILE
from generation_service.models.musicgen.checkpoints.renamed_tensors import (
    RenamedTensors,
    Sources,
    group_sources,
    renamed_headers,
    sources_below,
)
from generation_service.models.musicgen.checkpoints.safetensors_file import (
    SafetensorsFiles,
    read_json,
    read_safetensors,
)
from generation_service.models.musicgen.checkpoints.transformers_names import CONDITION, MELODY, audiocraft_name

GENERATION_FILE = "generation_config.json"
PREPROCESSOR_FILE = "preprocessor_config.json"
TOKENIZER_FILES = ("tokenizer.json", "spiece.model")
"""One of them is enough."""
_EXPECTED = "the configuration of transformers' MusicGen"
_MODEL_TYPES = ("musicgen", "musicgen_melody")
_CHROMA_DEFAULTS = {"n_fft": 1 << 14, "hop_length": 1 << 12, "chunk_length": 30}
_WINDOW_SECONDS = 30.0
"""The length of the clips that the published models were trained on, for a folder without `generation_config.json`."""


def read_transformers(folder: Path) -> Checkpoint:
    """Raises FailedPrecondition if files are missing, truncated, or of another kind of model."""
    raw = read_json(folder / CONFIG_FILE, _EXPECTED)
    config = _translate_config(raw, folder)
    files = read_safetensors(folder)
    lm = _part(files, config, group_sources(files.headers, audiocraft_name, files.path))
    codec = _part(files, raw["audio_encoder"], sources_below("audio_encoder.", files.headers))
    text_encoder = _part(files, raw["text_encoder"], sources_below("text_encoder.", files.headers))

    def open_text_encoder() -> StoredTextEncoder:
        if not any((folder / name).is_file() for name in TOKENIZER_FILES):
            raise missing_checkpoint(
                folder, f"it has no tokenizer ({' or '.join(TOKENIZER_FILES)}); save the model's processor there too"
            )
        return StoredTextEncoder(
            text_encoder.path, text_encoder.config, text_encoder.headers, text_encoder.map_tensors, folder
        )

    return Checkpoint(
        path=files.path,
        config=config,
        headers=lm.headers,
        map_tensors=lm.map_tensors,
        stored_names=lm.stored_names,
        digest=config_digest(files, [raw, config]),
        layout="transformers",
        open_text_encoder=open_text_encoder,
        open_codec=lambda: codec,
    )


def config_digest(files: SafetensorsFiles, configs: Any) -> str:
    """16 hexadecimal digits that change with the tensors, as far as `files.digest` covers them, or a configuration."""
    text = f"{files.digest()} {json.dumps(configs, sort_keys=True, default=str)}"
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _part(files: SafetensorsFiles, config: Mapping[str, Any], sources: Sources) -> StoredNetwork:
    return StoredNetwork(
        path=files.path,
        config=config,
        headers=renamed_headers(files.headers, sources),
        map_tensors=lambda: RenamedTensors(files.map_tensors(), sources),
        stored_names={name: ", ".join(names) for name, names in sources.items()},
    )


def _translate_config(raw: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """audiocraft's `xp.cfg` for the model, as far as anything reads it."""
    path = folder / CONFIG_FILE
    fields = ConfigFields(raw, path, _EXPECTED)
    model_type = fields.choice("model_type", _MODEL_TYPES)
    decoder_type = f"{model_type}_decoder"
    for key, expected, default in (
        ("model_type", decoder_type, decoder_type),
        ("activation_function", "gelu", "gelu"),
        ("scale_embedding", False, False),
        ("tie_word_embeddings", False, False),
        ("cross_attention_hidden_size", None, None),
    ):
        fields.expect(f"decoder.{key}", expected, default)
    fields.expect("text_encoder.model_type", "t5")
    dim, n_q, card = (fields.count(f"decoder.{key}") for key in ("hidden_size", "num_codebooks", "vocab_size"))
    if fields.count("text_encoder.d_model") == dim:
        problem = f"decoder.hidden_size is {dim}, that of the text encoder, for which transformers saves no projection"
        raise invalid_checkpoint(path, problem)
    fields.expect("decoder.pad_token_id", card, card)  # The code that stands for "no code".
    is_melody = model_type == "musicgen_melody"
    channels = fields.count("decoder.audio_channels") if fields.value("decoder.audio_channels", None) else 1
    sample_rate_hz = fields.count("audio_encoder.sampling_rate")
    _check_preprocessor(folder, sample_rate_hz)
    return {
        "lm_model": "transformer_lm",
        "sample_rate": sample_rate_hz,
        "channels": channels,
        "interleave_stereo_codebooks": {"use": channels == 2, "per_timestep": False},
        "dataset": {"segment_duration": _window_seconds(folder, fields)},
        "transformer_lm": {
            "n_q": n_q,
            "card": card,
            "dim": dim,
            "num_heads": fields.count("decoder.num_attention_heads"),
            "num_layers": fields.count("decoder.num_hidden_layers"),
            "hidden_scale": fields.count("decoder.ffn_dim") / dim,
            "activation": "gelu",
            "norm_first": True,
            "bias_ff": False,
            "bias_attn": False,
            "bias_proj": False,
            "causal": True,
        },
        "codebooks_pattern": {
            "modeling": "delay",
            "delay": {"delays": [k // channels for k in range(n_q)], "flatten_first": 0, "empty_initial": 0},
        },
        "fuser": {"prepend": [MELODY, CONDITION], "cross": []} if is_melody else {"cross": [CONDITION]},
        "conditioners": {
            CONDITION: {"model": "t5", "t5": {"name": "t5", "finetune": False, "normalize_text": False}},
            **({MELODY: _translate_chroma(folder, fields, sample_rate_hz)} if is_melody else {}),
        },
    }


def _translate_chroma(folder: Path, fields: ConfigFields, sample_rate_hz: int) -> dict[str, Any]:
    """The conditioner of the melody, from `preprocessor_config.json`, or with the defaults of its class."""
    path = folder / PREPROCESSOR_FILE
    raw = read_json(path, _EXPECTED) if path.is_file() else {}
    preprocessor = ConfigFields(_CHROMA_DEFAULTS | raw, path, "MusicgenMelodyFeatureExtractor")
    n_chroma = fields.count("num_chroma")
    if n_chroma == fields.count("decoder.hidden_size"):
        problem = f"num_chroma is decoder.hidden_size, {n_chroma}, for which transformers saves no projection"
        raise invalid_checkpoint(fields.path, problem)
    return {
        "model": "chroma_stem",
        "chroma_stem": {
            "sample_rate": sample_rate_hz,
            "n_chroma": n_chroma,
            "winlen": preprocessor.count("n_fft"),
            "winhop": preprocessor.count("hop_length"),
            "argmax": True,
            "chroma_length": fields.count("chroma_length"),
            "max_frames": preprocessor.count("chunk_length") * sample_rate_hz,
        },
    }


def _window_seconds(folder: Path, fields: ConfigFields) -> float:
    """The length that the model generates by default: `max_length` counts frames of codes."""
    if not (folder / GENERATION_FILE).is_file():
        return _WINDOW_SECONDS
    generation = ConfigFields(read_json(folder / GENERATION_FILE, _EXPECTED), folder / GENERATION_FILE, _EXPECTED)
    if generation.value("max_length", None) is None:
        return _WINDOW_SECONDS
    hop = 1
    for ratio in fields.factors("audio_encoder.upsampling_ratios"):
        hop *= ratio
    return generation.count("max_length") * hop / fields.count("audio_encoder.sampling_rate")


def _check_preprocessor(folder: Path, sample_rate_hz: int) -> None:
    """A preprocessor of another rate belongs to another codec."""
    path = folder / PREPROCESSOR_FILE
    if path.is_file():
        fields = ConfigFields(read_json(path, "the configuration of a feature extractor"), path, _EXPECTED)
        fields.expect("sampling_rate", sample_rate_hz, sample_rate_hz)
