"""Finds and loads MAGNeT models, whose checkpoints have the layouts of MusicGen's."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial

import torch

from generation_service.config import DeviceChoice, DeviceName, PrecisionChoice, PrecisionName
from generation_service.hardware.memory import CPU_BATCH_SIZE
from generation_service.models.base import Capability, ModelInfo
from generation_service.models.device import forbid_tf32, gpu_memory, resolve_device
from generation_service.models.execution import ModelExecution
from generation_service.models.magnet.magnet_config import MagnetConfig, parse_magnet_config
from generation_service.models.magnet.magnet_model import MIN_PROMPT_SHARE, Magnet
from generation_service.models.magnet.masked_decoding import MaskedDecoder
from generation_service.models.magnet.masked_transformer import MaskedTransformer
from generation_service.models.model_card import read_licence
from generation_service.models.musicgen.checkpoints.checkpoint import Checkpoint
from generation_service.models.musicgen.checkpoints.weight_check import check_lm_weights
from generation_service.models.musicgen.codec.chunk_decoder import ChunkDecoder
from generation_service.models.musicgen.codec.encodec_checkpoint import build_encodec
from generation_service.models.musicgen.conditioners.t5_conditioner import TextConditioner
from generation_service.models.musicgen.lm.decoder_layers import BuildLinear
from generation_service.models.musicgen.lm.device_linear import build_device_linear
from generation_service.models.musicgen.lm.linear import build_linear
from generation_service.models.musicgen.loader import check_codec, cpu_precision, free_memory
from generation_service.models.musicgen.memory_check import require_memory

_DECODE_REVISION = "m1"
"""Part of the model's version. It changes whenever the iterations yield other codes for the same request."""


@dataclass(frozen=True, slots=True)
class FoundMagnet:
    """A model whose files are present and consistent. Its weights are not in memory yet."""

    info: ModelInfo
    device: DeviceName
    precision: PrecisionName
    checkpoint: Checkpoint
    config: MagnetConfig
    precision_reason: str = ""
    """Empty: the precision does not depend on the model."""


def find_magnet(
    checkpoint: Checkpoint, *, name: str, device: DeviceChoice = "cpu", precision: PrecisionChoice = "auto"
) -> FoundMagnet:
    """Reads the configuration and the headers of the weights.

    Raises FailedPrecondition if the checkpoint is of another kind of model, weights or the codec do not fit it, or this
    machine does not have the device or the device not the precision.
    """
    device_name, chosen_precision = resolve_device(device, precision)
    config = parse_magnet_config(checkpoint)
    check_lm_weights(checkpoint, config.lm)
    check_codec(checkpoint, config.lm)
    version = [checkpoint.digest, _DECODE_REVISION, chosen_precision, *(["cuda"] if device_name == "cuda" else [])]
    lm = config.lm
    info = ModelInfo(
        name=name,
        version="-".join(version),
        description=f"MAGNeT, {lm.num_layers} layers of {lm.dim}, segments of {lm.max_duration_seconds:g} s.",
        licence=read_licence(checkpoint.path.parent, name, checkpoint.source_licence),
        sample_rate_hz=lm.sample_rate_hz,
        channels=lm.channels,
        max_duration_seconds=lm.max_duration_seconds,
        is_synthesiser=False,
        default_guidance_scale=config.max_guidance,
        default_temperature=config.temperature,
        default_top_k=0,
        default_top_p=config.top_p,
        capabilities=frozenset({Capability.CONTINUATION, Capability.NEGATIVE_PROMPT}),
        max_continuation_seconds=lm.max_duration_seconds * (1 - MIN_PROMPT_SHARE),
    )
    return FoundMagnet(info, device_name, chosen_precision, checkpoint, config)


def load_magnet(found: FoundMagnet, *, max_batch_size: int = CPU_BATCH_SIZE) -> Magnet:
    """Loads the model into memory. At most `max_batch_size` requests have a state at once.

    Raises FailedPrecondition if the text encoder is missing, or the memory does not suffice.
    """
    started_at = time.monotonic()
    config, device = found.config, torch.device(found.device)
    build: BuildLinear
    if found.device == "cuda":
        require_memory(found.checkpoint, found.precision, gpu_memory().free_bytes, "the GPU")
        forbid_tf32()
        build = partial(build_device_linear, weight_format=found.precision, implementation="torch")
    else:
        require_memory(found.checkpoint, found.precision, free_memory(), "this machine")
        build = partial(build_linear, precision=cpu_precision(found.precision))
    attention_dtype = torch.bfloat16 if found.device == "cuda" and found.precision != "fp32" else torch.float32
    codec = build_encodec(found.checkpoint.open_codec()).to(device)
    conditioner = TextConditioner(found.checkpoint, config.lm, found.device)
    transformer = MaskedTransformer(found.checkpoint, config, build, device, attention_dtype)
    decoder = ChunkDecoder(codec, config.lm.channels, max_streams=max_batch_size)
    loaded_at = time.monotonic()
    if found.device == "cuda":
        decoder.warm_up()
    execution = ModelExecution(
        device="cuda:0" if found.device == "cuda" else "cpu",
        precision=found.precision,
        kv_precision="none",
        max_batch_size=max_batch_size,
        load_seconds=time.monotonic() - started_at,
        warm_up_seconds=time.monotonic() - loaded_at,
    )
    return Magnet(found.info, MaskedDecoder(transformer), conditioner, codec, decoder, execution)
