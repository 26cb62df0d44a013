"""Loads MusicGen from a folder of files, in any of the layouts that `checkpoints` reads."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from dgx_music.errors import FailedPrecondition
from generation_service.config import DeviceChoice, DeviceName, KvPrecisionChoice, PrecisionChoice, PrecisionName
from generation_service.hardware.memory import CPU_BATCH_SIZE, host_memory
from generation_service.models.base import Capability, ModelInfo
from generation_service.models.device import forbid_tf32, gpu_memory, resolve_device
from generation_service.models.execution import KernelChoice, ModelExecution
from generation_service.models.model_card import read_licence
from generation_service.models.musicgen.adapters.adapter_registry import AdapterRegistry
from generation_service.models.musicgen.checkpoints.checkpoint import Checkpoint, invalid_checkpoint
from generation_service.models.musicgen.checkpoints.checkpoint_reader import read_checkpoint
from generation_service.models.musicgen.checkpoints.config import LmConfig, parse_lm_config
from generation_service.models.musicgen.checkpoints.weight_check import check_lm_weights
from generation_service.models.musicgen.code_generator import Reservation
from generation_service.models.musicgen.codec.chunk_decoder import ChunkDecoder
from generation_service.models.musicgen.codec.encodec import Encodec
from generation_service.models.musicgen.codec.encodec_checkpoint import build_encodec, check_encodec
from generation_service.models.musicgen.conditioners.prefix_loader import load_prefix_conditioner
from generation_service.models.musicgen.conditioners.t5_conditioner import TextConditioner
from generation_service.models.musicgen.conditions import MAX_BRANCHES
from generation_service.models.musicgen.eager_code_generator import EagerCodeGenerator
from generation_service.models.musicgen.kernels.kernel_selection import Timer, time_on_cuda
from generation_service.models.musicgen.lm.decoder_layers import read_decoder
from generation_service.models.musicgen.lm.kv_cache import KvCachePool
from generation_service.models.musicgen.lm.language_model import LanguageModel
from generation_service.models.musicgen.lm.linear import Precision, build_linear
from generation_service.models.musicgen.memory_check import require_memory
from generation_service.models.musicgen.model import MusicGen
from generation_service.models.musicgen.resident.decode_operations import DecodeOperations
from generation_service.models.musicgen.resident.memory_budget import GpuBudget, budget_pages
from generation_service.models.musicgen.resident.operation_selection import select_operations
from generation_service.models.musicgen.resident.page_pool import PagePool
from generation_service.models.musicgen.resident.resident_code_generator import ResidentCodeGenerator
from generation_service.models.musicgen.weight_precision import choose_precision

CAPABILITIES = frozenset(
    {
        Capability.CONTINUATION,
        Capability.NEGATIVE_PROMPT,
        Capability.WEIGHTED_PROMPTS,
        Capability.SECTIONS,
        Capability.ADAPTERS,
    }
)
"""What every model with a text condition can do."""
MAX_DURATION_SECONDS = 600.0
"""The longest piece. Pieces longer than a window are generated in several windows."""
DEFAULT_MEMORY_FRACTION = 0.9
UNKNOWN_FREE_BYTES = 4 << 30
LONG_PROMPT_TOKENS = 512
"""The length of prompts for which the memory on the CPU suffices if all requests of a batch have one as long."""
_DECODE_REVISION = "s2"
"""Part of the model's version. It changes whenever the decode loop yields other codes for the same request."""
_CHANNELS = {1: "mono", 2: "stereo"}
_KV_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp8": torch.float8_e4m3fn}


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A model whose files are present and consistent. Its weights are not in memory yet."""

    info: ModelInfo
    folder: Path
    device: DeviceName
    precision: PrecisionName
    checkpoint: Checkpoint
    config: LmConfig
    kv_precision: KvPrecisionChoice = "auto"
    """The precision of the KV cache on a GPU. "auto": that of the products, bf16 or fp32."""
    precision_reason: str = ""
    """Why the weights have this precision; empty if the settings say so."""
    adapter_folder: Path | None = None
    """The folder of the installed adapters."""

    def open_adapters(self) -> AdapterRegistry:
        """The installed adapters for this model."""
        return AdapterRegistry(self.adapter_folder, self.info.name, self.config, self.checkpoint.headers)


def find_musicgen(
    folder: Path,
    *,
    name: str | None = None,
    device: DeviceChoice = "cpu",
    precision: PrecisionChoice = "auto",
    kv_precision: KvPrecisionChoice = "auto",
    memory_gb_per_second: float = 0.0,
    adapter_folder: Path | None = None,
) -> FoundModel:
    """Reads the configuration of the model in a folder, but not its weights.

    The model has the folder's name unless `name` is given. `memory_gb_per_second` is the memory bandwidth of the GPU,
    or 0 if it is not known; it decides the precision "auto" of the weights. `adapter_folder` is the folder of the
    installed adapters, if there is one. Raises FailedPrecondition if files are
    missing, truncated or of another kind of model, or if this machine does not have the device or the device not the
    precision.
    """
    device_name, chosen_precision = resolve_device(device, precision)
    checkpoint = read_checkpoint(folder)
    config, reason = parse_lm_config(checkpoint), ""
    check_lm_weights(checkpoint, config)
    check_codec(checkpoint, config)
    if device_name == "cuda" and precision == "auto":
        chosen_precision, reason = choose_precision(config, memory_gb_per_second)
    version = [checkpoint.digest, _DECODE_REVISION, chosen_precision]
    if device_name == "cuda":
        version += ["cuda"] if kv_precision == "auto" else ["cuda", f"kv{kv_precision}"]
    info = ModelInfo(
        name=name or folder.resolve().name,
        version="-".join(version),
        description=f"{config.family}, {config.num_layers} layers of {config.dim}, {_CHANNELS[config.channels]}.",
        licence=read_licence(checkpoint.path.parent, name or folder.resolve().name, checkpoint.source_licence),
        sample_rate_hz=config.sample_rate_hz,
        channels=config.channels,
        max_duration_seconds=MAX_DURATION_SECONDS,
        is_synthesiser=False,
        capabilities=_capabilities(config),
    )
    return FoundModel(
        info, folder, device_name, chosen_precision, checkpoint, config, kv_precision, reason, adapter_folder
    )


def load_musicgen(
    found: FoundModel,
    *,
    kv_bytes: int | None = None,
    max_batch_size: int = CPU_BATCH_SIZE,
    memory_fraction: float = DEFAULT_MEMORY_FRACTION,
) -> MusicGen:
    """Loads the model into memory, and on a GPU warms it up.

    `kv_bytes` limits the KV caches of all requests together. The default is what `max_batch_size` requests of the
    longest window need, and one of them with all branches that there can be; but on the CPU at most half of the free
    memory, on a GPU what is left of `memory_fraction` of it. Raises FailedPrecondition if the weights, the codec or the
    text encoder are missing or do not fit together, or if not even one request fits into the memory.
    """
    if found.device == "cuda":
        return load_resident(
            found, "cuda", kv_bytes=kv_bytes, max_batch_size=max_batch_size, memory_fraction=memory_fraction
        )
    started_at = time.monotonic()
    require_memory(found.checkpoint, found.precision, free_memory(), "this machine")
    codec, conditioner = build_encodec(found.checkpoint.open_codec()), TextConditioner(found.checkpoint, found.config)
    lm = LanguageModel(found.checkpoint, found.config, cpu_precision(found.precision))
    is_quantized = found.precision == "int8"
    if kv_bytes is None:
        positions = _max_positions(found.config, codec)
        size_bytes = KvCachePool(found.config, 0, is_quantized=is_quantized).size_bytes
        longest = Reservation(positions, LONG_PROMPT_TOKENS)
        with_branches = replace(longest, branches=MAX_BRANCHES, has_negative=True)
        kv_bytes = min(max(max_batch_size * size_bytes(longest), size_bytes(with_branches)), free_memory() // 2)
    pool = KvCachePool(found.config, kv_bytes, is_quantized=is_quantized)
    decoder = ChunkDecoder(codec, found.config.channels, max_streams=max_batch_size)
    execution = ModelExecution(
        device="cpu",
        precision=found.precision,
        kv_precision="int8" if is_quantized else "fp32",
        max_batch_size=max_batch_size,
        load_seconds=time.monotonic() - started_at,
    )
    prefixes = load_prefix_conditioner(found.checkpoint, found.config, "cpu")
    generator, adapters = EagerCodeGenerator(lm, pool), found.open_adapters()
    return MusicGen(found.info, generator, conditioner, codec, decoder, execution, prefixes, adapters.load)


def load_resident(
    found: FoundModel,
    device: DeviceName = "cuda",
    *,
    kv_bytes: int | None = None,
    max_batch_size: int = CPU_BATCH_SIZE,
    memory_fraction: float = DEFAULT_MEMORY_FRACTION,
    timer: Timer | None = None,
    **generator_options: Any,
) -> MusicGen:
    """Loads the model with the state of its requests on the device, as GPUs need it; on the CPU it is tested.

    `timer` measures the kernels to choose from; without it, which is possible on the CPU alone, there is no choice. The
    other arguments are those of `load_musicgen` and, as `generator_options`, those of `ResidentCodeGenerator`.
    """
    started_at = time.monotonic()
    config, torch_device = found.config, torch.device(device)
    budget = None
    if device == "cuda":
        budget = GpuBudget(memory_fraction)
        require_memory(found.checkpoint, found.precision, gpu_memory().free_bytes, "the GPU")
        timer = time_on_cuda
        forbid_tf32()
    codec = build_encodec(found.checkpoint.open_codec()).to(torch_device)
    conditioner = TextConditioner(found.checkpoint, config, device)
    dtype = _KV_TYPES[_kv_precision(found)]
    selecting_at = time.monotonic()
    kernels: tuple[KernelChoice, ...] = ()
    if found.precision_reason:
        kernels = (KernelChoice("precision", found.precision, reason=found.precision_reason),)
    if timer is None:
        operations = DecodeOperations(partial(build_linear, precision=cpu_precision(found.precision)))
    else:
        operations, choices = select_operations(config, found.precision, dtype, torch_device, timer)
        kernels += choices
    selected_at = time.monotonic()
    weights = read_decoder(found.checkpoint, config, torch_device, operations.build_linear)
    if kv_bytes is None and budget is not None:
        kv_bytes = budget.available_bytes()
    positions = _max_positions(config, codec)
    pages = budget_pages(config, dtype, positions=positions, max_batch_size=max_batch_size, available_bytes=kv_bytes)
    generator = ResidentCodeGenerator(
        config,
        weights,
        operations,
        PagePool(config, pages, dtype, torch_device),
        slots=max_batch_size,
        positions=positions,
        **generator_options,
    )
    decoder = ChunkDecoder(codec, config.channels, max_streams=max_batch_size)
    loaded_at = time.monotonic()
    if device == "cuda":
        generator.warm_up()
        decoder.warm_up()
    execution = ModelExecution(
        device="cuda:0" if device == "cuda" else "cpu",
        precision=found.precision,
        kv_precision=_kv_precision(found),
        max_batch_size=max_batch_size,
        load_seconds=time.monotonic() - started_at,
        warm_up_seconds=selected_at - selecting_at + time.monotonic() - loaded_at,
        kernels=kernels,
    )
    prefixes = load_prefix_conditioner(found.checkpoint, config, device)
    adapters = found.open_adapters()
    return MusicGen(found.info, generator, conditioner, codec, decoder, execution, prefixes, adapters.load)


def _capabilities(config: LmConfig) -> frozenset[Capability]:
    own = {Capability.MELODY: config.melody is not None, Capability.STYLE: config.style is not None}
    return CAPABILITIES | {capability for capability, is_own in own.items() if is_own}


def _kv_precision(found: FoundModel) -> str:
    """The precision of keys and values on a GPU, a key of `_KV_TYPES`."""
    return found.kv_precision if found.kv_precision != "auto" else "fp32" if found.precision == "fp32" else "bf16"


def cpu_precision(precision: PrecisionName) -> Precision:
    """The precision on the CPU. Raises FailedPrecondition if it has none such."""
    if precision == "fp8":
        raise FailedPrecondition(
            "DGX_MUSIC_PRECISION is fp8, which needs a GPU; use fp32 or int8", reason="PRECISION_UNSUPPORTED"
        )
    return precision


def check_codec(checkpoint: Checkpoint, config: LmConfig) -> None:
    """Raises FailedPrecondition if the codec is missing, unusable, or another one than the language model needs."""
    stored = checkpoint.open_codec()
    codec = check_encodec(stored)
    expected = (config.n_q // config.channels, config.card, config.sample_rate_hz)
    actual = (codec.codebooks, codec.codebook_size, codec.sample_rate_hz)
    if actual != expected:
        raise invalid_checkpoint(
            stored.path,
            "the codec has {} codebooks of {} codes at {} Hz, but the language model needs {} of {} at {} Hz".format(
                *actual, *expected
            ),
        )


def _max_positions(config: LmConfig, codec: Encodec) -> int:
    """Those of the longest window and its prefix."""
    window = int(config.max_duration_seconds * codec.config.frame_rate_hz)
    return config.max_prefix_positions + window + config.max_delay


def free_memory() -> int:
    """The host's free memory in bytes; a guess where the system does not say."""
    memory = host_memory()
    return UNKNOWN_FREE_BYTES if memory is None else memory.free_bytes
