"""LoRA adapters that PEFT writes for a model of `tests.support.transformers_checkpoints`, and how PEFT applies them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import MusicgenForConditionalGeneration

ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")
EVERYTHING = (
    *ATTENTION,
    "fc1",
    "fc2",
    "enc_to_dec_proj",
    *(f"lm_heads.{k}" for k in range(4)),
    *(f"embed_tokens.{k}" for k in range(4)),
)
"""What is usually trained for MusicGen: the modules of https://github.com/ylacombe/musicgen-dreamboothing."""


def write_adapter(
    folder: Path,
    model_folder: Path,
    targets: Sequence[str] | str = ATTENTION,
    *,
    seed: int = 1,
    decoder_only: bool = False,
    **options: Any,
) -> Path:
    """Has PEFT write an adapter with random A and B for a model, or for its decoder as a model of its own.

    `options` are those of `LoraConfig`.
    """
    settings = {"r": 4, "lora_alpha": 8, **options}
    base: Any = MusicgenForConditionalGeneration.from_pretrained(model_folder)
    config = LoraConfig(target_modules=targets if isinstance(targets, str) else list(targets), **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT can't find the base model on the hub.
        model: Any = get_peft_model(base.decoder if decoder_only else base, config)
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data = torch.randn(parameter.shape, generator=generator) * parameter.shape[-1] ** -0.5
        model.save_pretrained(folder)
    return folder


def change_config(folder: Path, **fields: Any) -> None:
    """Changes fields of an adapter's `adapter_config.json`."""
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def apply_by_peft(
    folders: Sequence[Path], scales: Sequence[float], *, merge: bool = False, decoder_only: bool = False
) -> Callable[[Any], Any]:
    """Returns a function that has PEFT add adapters to a model, each scaled, and merge them if asked."""

    def adapt(model: Any) -> Any:
        if not folders:
            return model
        if decoder_only:
            model.decoder = _add(model.decoder, folders, scales, merge=merge)
            return model
        return _add(model, folders, scales, merge=merge)

    return adapt


def _add(model: Any, folders: Sequence[Path], scales: Sequence[float], *, merge: bool) -> Any:
    names = [f"adapter{index}" for index in range(len(folders))]
    adapted: Any = PeftModel.from_pretrained(model, str(folders[0]), names[0])
    for name, folder in zip(names[1:], folders[1:], strict=True):
        adapted.load_adapter(str(folder), name)
    adapted.base_model.set_adapter(names)
    for module in adapted.modules():
        if isinstance(module, LoraLayer):
            for name, scale in zip(names, scales, strict=True):
                module.set_scale(name, scale)
    return adapted.merge_and_unload() if merge else adapted.eval().base_model.model
