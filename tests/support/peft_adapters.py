"""LoRA adapters that PEFT writes for transformers' MusicGen, with the weights of `tests.support.checkpoints`; and the
greedy codes of PEFT's own model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor
from transformers import MusicgenDecoderConfig, MusicgenForCausalLM

from generation_service.models.musicgen.checkpoints.config import LmConfig
from generation_service.models.musicgen.delay_pattern import Codes, DelayedCodes
from tests.support.checkpoints import TINY, lm_weights

ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")
ALL_LINEAR = (*ATTENTION, "fc1", "fc2", *(f"lm_heads.{k}" for k in range(4)))
EMBEDDINGS = tuple(f"embed_tokens.{k}" for k in range(4))
GUIDANCE_SCALE = 3.0


def build_lm(seed: int = 0) -> MusicgenForCausalLM:
    """transformers' language model with the weights of `checkpoints.write_checkpoint(…, "tiny", seed=seed)`."""
    config = MusicgenDecoderConfig(
        vocab_size=TINY.card,
        hidden_size=TINY.dim,
        num_hidden_layers=TINY.num_layers,
        num_attention_heads=TINY.num_heads,
        ffn_dim=4 * TINY.dim,
        num_codebooks=4,
        pad_token_id=TINY.card,
        bos_token_id=TINY.card,
    )
    model = MusicgenForCausalLM(config)
    model.load_state_dict(_to_hugging_face(lm_weights(TINY, 4, seed)))
    return model.eval()


def write_adapter(folder: Path, targets: Sequence[str] | str = ATTENTION, seed: int = 1, **options: Any) -> Path:
    """Has PEFT write an adapter with random A and B. `options` are those of `LoraConfig`."""
    settings = {"r": 4, "lora_alpha": 8, **options}
    modules = targets if isinstance(targets, str) else list(targets)
    model = get_peft_model(build_lm(), LoraConfig(target_modules=modules, **settings))
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * parameter.shape[-1] ** -0.5
    model.save_pretrained(folder)
    return folder


def load_peft(folders: Sequence[Path], scales: Sequence[float]) -> Any:
    """The language model with adapters by PEFT, each scaled."""
    model: Any = build_lm()
    names = [f"adapter{index}" for index in range(len(folders))]
    for name, folder in zip(names, folders, strict=True):
        if isinstance(model, PeftModel):
            model.load_adapter(str(folder), name)
        else:
            model = PeftModel.from_pretrained(model, str(folder), name)
    if names:
        model.base_model.set_adapter(names)
        for module in model.modules():
            if isinstance(module, LoraLayer):
                for name, scale in zip(names, scales, strict=True):
                    module.set_scale(name, scale)
    return model.eval()


@torch.inference_mode()
def greedy_codes(model: Any, text: Tensor | None, frames: int, config: LmConfig) -> Codes:
    """Codes [K, frames] with classifier-free guidance and no KV cache. text: [T, dim], or None."""
    codes = DelayedCodes(config.delays, frames, config.card)
    condition = torch.zeros(2, 1, config.dim) if text is None else torch.stack([text, torch.zeros_like(text)])
    while not codes.is_done:
        known = torch.from_numpy(codes.columns[:, : codes.step + 1]).repeat(2, 1)  # [2 K, n]
        logits = model(input_ids=known, encoder_hidden_states=condition).logits[:, -1].view(2, config.n_q, -1)
        guided = logits[1] + GUIDANCE_SCALE * (logits[0] - logits[1])
        codes.append(guided.argmax(-1).numpy())
    return codes.select_frames(0, frames)


def _to_hugging_face(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """audiocraft's names as transformers' `convert_musicgen_transformers.py` renames them."""
    renamed = {}
    for name, tensor in weights.items():
        if name.startswith("condition_provider"):
            continue
        if "in_proj_weight" in name:
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                renamed[_rename(name.replace("in_proj_weight", f"{letter}_proj.weight"))] = part
        else:
            renamed[_rename(name)] = tensor
    return renamed


def _rename(name: str) -> str:
    for old, new in (
        ("cross_attention.", "encoder_attn."),
        ("linear1.", "fc1."),
        ("linear2.", "fc2."),
        ("norm1.", "self_attn_layer_norm."),
        ("norm_cross.", "encoder_attn_layer_norm."),
        ("norm2.", "final_layer_norm."),
        ("out_norm.", "model.decoder.layer_norm."),
        ("transformer.layers.", "model.decoder.layers."),
        ("emb.", "model.decoder.embed_tokens."),
        ("linears.", "lm_heads."),
    ):
        name = name.replace(old, new)
    return name
