"""From a folder of audiocraft's files to a model that can be asked for music."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from dgx_music.errors import FailedPrecondition
from generation_service.config import DeviceChoice, DeviceName, PrecisionChoice
from generation_service.models.base import ModelInfo
from generation_service.models.device import resolve_device
from generation_service.models.musicgen.checkpoints.audiocraft_file import (
    COMPRESSION_FILE,
    LM_FILE,
    Checkpoint,
    file_digest,
    read_checkpoint,
    refuse,
)
from generation_service.models.musicgen.checkpoints.config import LmConfig, lm_config
from generation_service.models.musicgen.codec.encodec_checkpoint import load_encodec
from generation_service.models.musicgen.conditioners.t5_conditioner import TextConditioner
from generation_service.models.musicgen.lm.kv_cache import KvMemory
from generation_service.models.musicgen.lm.language_model import LanguageModel
from generation_service.models.musicgen.lm.linear import Precision
from generation_service.models.musicgen.lm.static_kv_cache import StaticKv, slot_bytes
from generation_service.models.musicgen.lm.static_language_model import Runner, StaticLanguageModel
from generation_service.models.musicgen.model import MusicGen

LICENCE = "CC-BY-NC-4.0"
"""Of the weights that Meta published."""
LONGEST_SECONDS = 600.0
"""Of a piece, which takes as many windows as it needs."""
MAX_REQUESTS = 8
"""At once on a GPU, where all KV caches are allocated with the model. On the CPU only memory bounds them."""
_CHANNELS = {1: "mono", 2: "stereo"}


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A model whose files are here and fit together. The weights are not in memory yet."""

    info: ModelInfo
    folder: Path
    device: DeviceName
    precision: Precision
    checkpoint: Checkpoint
    config: LmConfig


def find_musicgen(
    folder: Path, *, name: str | None = None, device: DeviceChoice = "cpu", precision: PrecisionChoice = "auto"
) -> FoundModel:
    """Reads what the folder says of itself, not the weights. The folder's name is the model's unless `name` is given.

    Raises FailedPrecondition for files that are missing, truncated or of another kind of model, and for a device that
    is not here or has no such precision.
    """
    chosen, how = resolve_device(device, precision)
    checkpoint = read_checkpoint(folder / LM_FILE)
    config = lm_config(checkpoint)
    codec_digest = file_digest(folder / COMPRESSION_FILE)
    info = ModelInfo(
        name=name or folder.resolve().name,
        version=f"{checkpoint.digest}-{codec_digest}-{how}" + ("-cuda" if chosen == "cuda" else ""),
        description=f"MusicGen, {config.num_layers} layers of {config.dim}, {_CHANNELS[config.channels]}.",
        licence=LICENCE,
        sample_rate_hz=config.sample_rate_hz,
        channels=config.channels,
        max_duration_seconds=LONGEST_SECONDS,
        is_synthesiser=False,
        can_continue=True,
    )
    return FoundModel(info, folder, chosen, how, checkpoint, config)


def load_musicgen(found: FoundModel, *, kv_bytes: int | None = None, max_requests: int = MAX_REQUESTS) -> MusicGen:
    """Brings it into memory. `kv_bytes` bounds all requests' KV caches; half of what is free unless given.

    Raises FailedPrecondition where weights, codec or text encoder are missing or do not fit.
    """
    config = found.config
    codec = load_encodec(found.folder)
    expected = (config.n_q // config.channels, config.card, config.sample_rate_hz)
    has = (codec.config.codebooks, codec.config.codebook_size, codec.config.sample_rate_hz)
    if has != expected:
        raise refuse(
            found.folder / COMPRESSION_FILE,
            "its codebooks, codes and rate are {}, {} and {} Hz; the language model needs {}, {} and {} Hz".format(
                *has, *expected
            ),
        )
    conditioner = TextConditioner(found.checkpoint, config, found.device)
    if found.device == "cpu":
        lm = LanguageModel(found.checkpoint, config, found.precision)
        memory = KvMemory(config, _free_memory() // 2 if kv_bytes is None else kv_bytes, lm.absorbed_tokens)
        return MusicGen(found.info, lm, conditioner, codec, memory)
    from generation_service.models.musicgen.lm.cuda_graph import CudaGraphs

    torch.backends.cudnn.allow_tf32 = False  # cuDNN's default, which would leave the codec's sums 10 bits.
    codec.to(found.device)
    # The other half is for the weights and for what steps and the codec need while they run.
    torch.cuda.empty_cache()  # What a model before this one has left to torch is free, too.
    kv_bytes = torch.cuda.mem_get_info()[0] // 2 if kv_bytes is None else kv_bytes
    positions = int(config.max_duration_seconds * codec.config.frame_rate_hz) + config.max_delay
    static_lm, static_kv = load_static(found, positions, kv_bytes, max_requests, CudaGraphs())
    return MusicGen(found.info, static_lm, conditioner, codec, static_kv)


def load_static(
    found: FoundModel, positions: int, kv_bytes: int, max_requests: int, runner: Runner
) -> tuple[StaticLanguageModel, StaticKv]:
    """The language model for an accelerator, with KV caches of so many positions for as many requests as fit.

    Raises FailedPrecondition where not one does.
    """
    dtype = torch.bfloat16 if found.precision == "bf16" else torch.float32
    size = slot_bytes(found.config, positions, dtype)
    requests = min(max_requests, kv_bytes // size)
    if not requests:
        raise FailedPrecondition(
            f"{found.info.name} needs {size >> 20} MiB for one request's KV cache and may take {kv_bytes >> 20}; "
            "free memory of the GPU, take a smaller model, or set DGX_MUSIC_DEVICE to cpu",
            reason="GPU_MEMORY",
        )
    memory = StaticKv(found.config, requests, positions, dtype=dtype, device=torch.device(found.device))
    return StaticLanguageModel(found.checkpoint, found.config, found.precision, memory, runner), memory


def _free_memory() -> int:
    """Of the host, in bytes."""
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
