"""Writes tiny pipelines with random weights as diffusers' `save_pretrained` does: Stable Audio Open, Stable Audio 3,
and ACE-Step."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch

WIDTH = 16
"""The width of the text encoders and of the transformers."""
LATENT_CHANNELS = 4
STABLE_AUDIO_LATENTS = 60
"""The latents of a piece of Stable Audio Open, which has one length."""
CARD = "---\nlicense: other\nlicense_name: stable-audio-community\n---\n# A model\n"


def write_stable_audio(folder: Path, *, seed: int = 0) -> Path:
    """Writes a `StableAudioPipeline` at 8 kHz in stereo, of at most 0.96 s."""
    from diffusers import (
        CosineDPMSolverMultistepScheduler,
        StableAudioDiTModel,
        StableAudioPipeline,
        StableAudioProjectionModel,
    )
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    torch.manual_seed(seed)
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    characters = [(character, -3.0) for character in string.ascii_letters + string.digits + string.punctuation]
    text_encoder = T5EncoderModel(
        T5Config(vocab_size=128, d_model=WIDTH, d_kv=8, d_ff=32, num_layers=1, num_heads=2, pad_token_id=0)
    )
    torch.nn.init.normal_(text_encoder.shared.weight)
    pipeline = StableAudioPipeline(
        vae=_oobleck(8000, [2, 8, 8]),
        text_encoder=text_encoder,
        projection_model=StableAudioProjectionModel(WIDTH, WIDTH, 0, 64),
        tokenizer=T5Tokenizer(vocab=special + characters, extra_ids=0, model_max_length=64),
        transformer=StableAudioDiTModel(
            sample_size=STABLE_AUDIO_LATENTS,
            in_channels=LATENT_CHANNELS,
            out_channels=LATENT_CHANNELS,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            num_key_value_attention_heads=1,
            cross_attention_dim=WIDTH,
            cross_attention_input_dim=WIDTH,
            global_states_input_dim=2 * WIDTH,
            time_proj_dim=8,
        ),
        scheduler=CosineDPMSolverMultistepScheduler(),
    )
    return _save(pipeline, folder)


def write_stable_audio_3(folder: Path, *, is_distilled: bool = True, seed: int = 0) -> Path:
    """Writes a `StableAudio3Pipeline` at 8 kHz in stereo."""
    from diffusers import (
        AutoencoderSAME,
        FlowMatchEulerDiscreteScheduler,
        StableAudio3DiTModel,
        StableAudio3Pipeline,
    )
    from diffusers.pipelines.stable_audio_3 import StableAudio3DurationEmbedder
    from transformers import GemmaTokenizer, T5GemmaConfig, T5GemmaEncoderModel

    torch.manual_seed(seed)
    vocabulary = {token: number for number, token in enumerate(["<pad>", "<eos>", "<bos>", "<unk>", "▁"])}
    for character in string.ascii_letters + string.digits + string.punctuation:
        vocabulary[character] = len(vocabulary)
    module: dict[str, Any] = {
        "vocab_size": 128,
        "hidden_size": WIDTH,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
    }
    text_config = T5GemmaConfig(encoder=module, decoder=module, is_encoder_decoder=False)
    vae = AutoencoderSAME(
        patch_size=8,
        encoder_channels=8,
        encoder_c_mults=[2],
        encoder_strides=[4],
        encoder_transformer_depths=[2],
        latent_dim=LATENT_CHANNELS,
        dim_heads=8,
        sampling_rate=8000,
    )
    for name, parameter in vae.named_parameters():
        if "new_tokens" in name:  # Its own initialization is almost zero.
            torch.nn.init.normal_(parameter)
    pipeline = StableAudio3Pipeline(
        vae=vae,
        text_encoder=T5GemmaEncoderModel(text_config),
        tokenizer=GemmaTokenizer(vocab=vocabulary, merges=[], model_max_length=64),
        duration_embedder=StableAudio3DurationEmbedder(output_dim=WIDTH, fourier_dim=8, max_val=64.0),
        transformer=StableAudio3DiTModel(
            io_channels=LATENT_CHANNELS,
            embed_dim=WIDTH,
            depth=2,
            num_heads=2,
            cond_token_dim=WIDTH,
            global_cond_dim=WIDTH,
            local_add_cond_dim=LATENT_CHANNELS + 1,
            timestep_features_dim=8,
            num_memory_tokens=4,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1, stochastic_sampling=is_distilled),
    )
    return _save(pipeline, folder)


def write_ace_step(folder: Path, *, is_turbo: bool = False, seed: int = 0) -> Path:
    """Writes an `AceStepPipeline` at 8 kHz in stereo: 25 latents a second."""
    from diffusers import (
        AceStepPipeline,
        AceStepTransformer1DModel,
        FlowMatchEulerDiscreteScheduler,
    )
    from diffusers.pipelines.ace_step import (
        AceStepAudioTokenDetokenizer,
        AceStepAudioTokenizer,
        AceStepConditionEncoder,
    )
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

    torch.manual_seed(seed)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<|endoftext|>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    heads: dict[str, Any] = {
        "hidden_size": WIDTH,
        "intermediate_size": 32,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
    }
    condition_encoder = AceStepConditionEncoder(
        text_hidden_dim=WIDTH,
        timbre_hidden_dim=LATENT_CHANNELS,
        num_lyric_encoder_hidden_layers=1,
        num_timbre_encoder_hidden_layers=1,
        **heads,
    )
    torch.nn.init.normal_(condition_encoder.silence_latent)
    pipeline = AceStepPipeline(
        vae=_oobleck(8000, [4, 8, 10]),
        text_encoder=Qwen3Model(Qwen3Config(vocab_size=len(vocabulary), num_hidden_layers=1, **heads)),
        tokenizer=PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token="<|endoftext|>", eos_token="<|endoftext|>"
        ),
        transformer=AceStepTransformer1DModel(
            num_hidden_layers=2,
            in_channels=3 * LATENT_CHANNELS,
            audio_acoustic_hidden_dim=LATENT_CHANNELS,
            is_turbo=is_turbo,
            **heads,
        ),
        condition_encoder=condition_encoder,
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1, shift=1.0),
        # Text-to-music needs neither of them.
        audio_tokenizer=AceStepAudioTokenizer(audio_acoustic_hidden_dim=LATENT_CHANNELS, fsq_dim=WIDTH, **heads),
        audio_token_detokenizer=AceStepAudioTokenDetokenizer(audio_acoustic_hidden_dim=LATENT_CHANNELS, **heads),
    )
    return _save(pipeline, folder)


def _oobleck(sampling_rate: int, ratios: list[int]) -> Any:
    from diffusers import AutoencoderOobleck

    return AutoencoderOobleck(
        encoder_hidden_size=4,
        downsampling_ratios=ratios,
        channel_multiples=[1, 1, 2],
        decoder_channels=4,
        decoder_input_channels=LATENT_CHANNELS,
        audio_channels=2,
        sampling_rate=sampling_rate,
    )


def _save(pipeline: Any, folder: Path) -> Path:
    for component in pipeline.components.values():
        if isinstance(component, torch.nn.Module):
            _randomize_constants(component)
    pipeline.save_pretrained(folder, safe_serialization=True)
    (folder / "README.md").write_text(CARD)
    return folder


@torch.no_grad()
def _randomize_constants(module: torch.nn.Module) -> None:
    """Many layers are initialized to add nothing, or to scale by one; so would be whatever is wrong with them."""
    for parameter in module.parameters():
        if bool((parameter == parameter.flatten()[0]).all()):
            parameter += 0.2 * torch.randn_like(parameter)
