"""Loads MusicGen from a folder of files in audiocraft's format."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from dgx_music.errors import FailedPrecondition
from generation_service.config import DeviceChoice, DeviceName, PrecisionChoice
from generation_service.models.base import ModelInfo
from generation_service.models.device import resolve_device
from generation_service.models.musicgen.checkpoints.checkpoint import (
    COMPRESSION_FILE,
    LM_FILE,
    Checkpoint,
    file_digest,
    invalid_checkpoint,
    read_checkpoint,
)
from generation_service.models.musicgen.checkpoints.config import LmConfig, parse_lm_config
from generation_service.models.musicgen.codec.encodec_checkpoint import load_encodec
from generation_service.models.musicgen.conditioners.t5_conditioner import TextConditioner
from generation_service.models.musicgen.lm.kv_cache import KvCachePool
from generation_service.models.musicgen.lm.language_model import LanguageModel
from generation_service.models.musicgen.lm.linear import Precision
from generation_service.models.musicgen.lm.static_kv_cache import StaticKvCachePool, slot_bytes
from generation_service.models.musicgen.lm.static_language_model import StaticLanguageModel, StepRunner
from generation_service.models.musicgen.model import MusicGen

LICENCE = "CC-BY-NC-4.0"
"""SPDX identifier of the licence of Meta's published weights."""
MAX_DURATION_SECONDS = 600.0
"""The longest piece. Pieces longer than a window are generated in several windows."""
MAX_REQUESTS = 8
"""Concurrent requests on a GPU, where all KV caches are allocated with the model. On the CPU the limit is memory."""
_CHANNELS = {1: "mono", 2: "stereo"}


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A model whose files are present and consistent. Its weights are not in memory yet."""

    info: ModelInfo
    folder: Path
    device: DeviceName
    precision: Precision
    checkpoint: Checkpoint
    config: LmConfig


def find_musicgen(
    folder: Path, *, name: str | None = None, device: DeviceChoice = "cpu", precision: PrecisionChoice = "auto"
) -> FoundModel:
    """Reads the configuration of the model in a folder, but not its weights.

    The model has the folder's name unless `name` is given. Raises FailedPrecondition if files are missing, truncated or
    of another kind of model, or if this machine does not have the device or the device not the precision.
    """
    device_name, chosen_precision = resolve_device(device, precision)
    checkpoint = read_checkpoint(folder / LM_FILE)
    config = parse_lm_config(checkpoint)
    codec_digest = file_digest(folder / COMPRESSION_FILE)
    info = ModelInfo(
        name=name or folder.resolve().name,
        version=f"{checkpoint.digest}-{codec_digest}-{chosen_precision}" + ("-cuda" if device_name == "cuda" else ""),
        description=f"MusicGen, {config.num_layers} layers of {config.dim}, {_CHANNELS[config.channels]}.",
        licence=LICENCE,
        sample_rate_hz=config.sample_rate_hz,
        channels=config.channels,
        max_duration_seconds=MAX_DURATION_SECONDS,
        is_synthesiser=False,
        can_continue=True,
    )
    return FoundModel(info, folder, device_name, chosen_precision, checkpoint, config)


def load_musicgen(found: FoundModel, *, kv_bytes: int | None = None, max_requests: int = MAX_REQUESTS) -> MusicGen:
    """Loads the model into memory.

    `kv_bytes` limits the KV caches of all requests together; the default is half of the free memory.
    Raises FailedPrecondition if the weights, the codec or the text encoder are missing or do not fit together.
    """
    config = found.config
    codec = load_encodec(found.folder)
    expected = (config.n_q // config.channels, config.card, config.sample_rate_hz)
    actual = (codec.config.codebooks, codec.config.codebook_size, codec.config.sample_rate_hz)
    if actual != expected:
        raise invalid_checkpoint(
            found.folder / COMPRESSION_FILE,
            "the codec has {} codebooks of {} codes at {} Hz, but the language model needs {} of {} at {} Hz".format(
                *actual, *expected
            ),
        )
    conditioner = TextConditioner(found.checkpoint, config, found.device)
    if found.device == "cpu":
        lm = LanguageModel(found.checkpoint, config, found.precision)
        pool = KvCachePool(config, _free_memory() // 2 if kv_bytes is None else kv_bytes, lm.max_absorbed_tokens)
        return MusicGen(found.info, lm, conditioner, codec, pool)
    from generation_service.models.musicgen.lm.cuda_graph import CudaGraphRunner

    torch.backends.cudnn.allow_tf32 = False  # On by default, with a significand of 10 bits: too little for the codec.
    codec.to(found.device)
    # The other half is for the weights and for the working memory of the decode steps and the codec.
    torch.cuda.empty_cache()  # Memory that torch has cached from an earlier model is free, too.
    kv_bytes = torch.cuda.mem_get_info()[0] // 2 if kv_bytes is None else kv_bytes
    positions = int(config.max_duration_seconds * codec.config.frame_rate_hz) + config.max_delay
    static_lm, static_pool = load_static_lm(found, positions, kv_bytes, max_requests, CudaGraphRunner())
    return MusicGen(found.info, static_lm, conditioner, codec, static_pool)


def load_static_lm(
    found: FoundModel, positions: int, kv_bytes: int, max_requests: int, runner: StepRunner
) -> tuple[StaticLanguageModel, StaticKvCachePool]:
    """Loads the language model for an accelerator, with KV caches of `positions` for as many requests as fit.

    Raises FailedPrecondition if not even one request fits into `kv_bytes`.
    """
    dtype = torch.bfloat16 if found.precision == "bf16" else torch.float32
    size = slot_bytes(found.config, positions, dtype)
    requests = min(max_requests, kv_bytes // size)
    if not requests:
        raise FailedPrecondition(
            f"model {found.info.name} needs {size >> 20} MiB for the KV cache of one request, but only "
            f"{kv_bytes >> 20} MiB are available; free GPU memory, use a smaller model, or set DGX_MUSIC_DEVICE to cpu",
            reason="GPU_MEMORY",
        )
    pool = StaticKvCachePool(found.config, requests, positions, dtype=dtype, device=torch.device(found.device))
    return StaticLanguageModel(found.checkpoint, found.config, found.precision, pool, runner), pool


def _free_memory() -> int:
    """The host's free memory in bytes."""
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
