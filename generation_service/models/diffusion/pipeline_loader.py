"""Loads a diffusion model from a folder in diffusers' layout."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dgx_music.errors import FailedPrecondition
from generation_service.config import DeviceChoice, DeviceName, PrecisionChoice, PrecisionName
from generation_service.hardware.memory import CPU_BATCH_SIZE, host_memory
from generation_service.models.base import GenerationParameters, ModelInfo
from generation_service.models.device import empty_device_cache, forbid_tf32, gpu_memory, resolve_device
from generation_service.models.device_errors import is_out_of_memory
from generation_service.models.diffusion.ace_step import AceStep
from generation_service.models.diffusion.denoiser import Denoiser
from generation_service.models.diffusion.diffusers_library import check_installed, quiet_diffusers
from generation_service.models.diffusion.diffusion_model import DiffusionModel
from generation_service.models.diffusion.latent_decoder import PIECE_SECONDS, LatentDecoder
from generation_service.models.diffusion.pipeline_check import check_shapes
from generation_service.models.diffusion.pipeline_folder import PipelineFolder, read_pipeline_folder
from generation_service.models.diffusion.stable_audio import StableAudio
from generation_service.models.diffusion.stable_audio_3 import StableAudio3
from generation_service.models.execution import ModelExecution
from generation_service.models.model_card import read_licence
from generation_service.models.musicgen.checkpoints.checkpoint import invalid_checkpoint

DENOISERS: Mapping[str, type[Denoiser]] = {
    "StableAudioPipeline": StableAudio,
    "StableAudio3Pipeline": StableAudio3,
    "AceStepPipeline": AceStep,
}
WORKING_BYTES = {"cpu": 1 << 30, "cuda": 4 << 30}
"""Memory left for the largest call of the transformer, for the decoder, and for libraries."""
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_REVISION = "d1"
"""Part of the model's version. It changes whenever the same request would yield other samples."""


@dataclass(frozen=True, slots=True)
class FoundPipeline:
    """A model whose files are present and consistent. Its weights are not in memory yet."""

    info: ModelInfo
    pipeline: PipelineFolder
    device: DeviceName
    precision: PrecisionName

    weight_bytes: int
    """The memory that the weights need: in the precision of the model, but always in fp32 for the autoencoder."""


def find_pipeline(
    folder: Path, *, name: str | None = None, device: DeviceChoice = "cpu", precision: PrecisionChoice = "auto"
) -> FoundPipeline:
    """Reads the properties of the model in a folder, but not its weights. Does not import diffusers.

    Raises FailedPrecondition if files are missing, damaged or of a pipeline that is not supported, if diffusers is not
    installed, or if this machine does not have the device or the device not the precision.
    """
    found = read_pipeline_folder(folder)
    version = check_installed()
    device_name, chosen_precision = resolve_device(device, precision)
    if chosen_precision not in _DTYPES:
        raise FailedPrecondition(
            f"DGX_MUSIC_PRECISION is {chosen_precision}, which diffusion models do not support; set it to auto or fp32",
            reason="PRECISION_UNSUPPORTED",
        )
    vae = found.weights["vae"].elements
    weight_bytes = 4 * vae + _DTYPES[chosen_precision].itemsize * (found.elements - vae)
    name = name or folder.resolve().name
    facts = found.facts
    info = ModelInfo(
        name=name,
        version=f"{found.digest}-{_REVISION}-diffusers{version}-{device_name}-{chosen_precision}",
        description=f"{facts.description}, {weight_bytes / 1e9:.1f} GB in {chosen_precision}.",
        licence=read_licence(folder, name),
        sample_rate_hz=facts.sample_rate_hz,
        channels=facts.channels,
        max_duration_seconds=facts.max_duration_seconds,
        is_synthesiser=False,
        default_guidance_scale=facts.default_guidance_scale,
        capabilities=facts.capabilities,
    )
    return FoundPipeline(info, found, device_name, chosen_precision, weight_bytes)


def load_pipeline(
    found: FoundPipeline,
    *,
    max_batch_size: int = CPU_BATCH_SIZE,
    memory_fraction: float = 0.9,
    piece_seconds: float = PIECE_SECONDS,
) -> DiffusionModel:
    """Loads the model into memory.

    `memory_fraction` is the share of a GPU's free memory to use. Audio is decoded in pieces of `piece_seconds`.
    Raises FailedPrecondition if the memory does not suffice or the weights do not fit the configurations, before any of
    them is read.
    """
    started_at = time.monotonic()
    _check_memory(found, memory_fraction)
    check_shapes(found.pipeline)
    if found.device == "cuda":
        forbid_tf32()
    device = torch.device(found.device)
    pipeline = _read_pipeline(found, device)
    facts = found.pipeline.facts
    denoiser = DENOISERS[found.pipeline.class_name](pipeline, facts, device)
    _check_settings(denoiser, found)
    execution = ModelExecution(
        device=found.device if found.device == "cpu" else f"cuda:{torch.cuda.current_device()}",
        precision=found.precision,
        kv_precision="",
        max_batch_size=max_batch_size,
        load_seconds=time.monotonic() - started_at,
    )
    return DiffusionModel(found.info, denoiser, LatentDecoder(pipeline.vae, facts, piece_seconds), execution, device)


def _check_settings(denoiser: Denoiser, found: FoundPipeline) -> None:
    parameters = GenerationParameters(
        prompt="calm piano",
        frames=found.info.sample_rate_hz,
        seed=0,
        guidance_scale=found.info.default_guidance_scale,
    )
    try:
        with quiet_diffusers(), torch.no_grad():
            denoiser.rehearse(parameters)
    except Exception as error:  # The library may raise anything for a strange configuration.
        if is_out_of_memory(error):
            raise
        problem = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise invalid_checkpoint(
            found.pipeline.folder, f"its tokenizer, text encoder or scheduler fails ({problem})"
        ) from error


def _check_memory(found: FoundPipeline, fraction: float) -> None:
    if found.device == "cuda":
        empty_device_cache()
        free_bytes = round(gpu_memory().free_bytes * fraction)
    else:
        memory = host_memory()
        if memory is None:
            return
        free_bytes = memory.free_bytes
    needed_bytes = found.weight_bytes + WORKING_BYTES[found.device]
    if needed_bytes > free_bytes:
        raise FailedPrecondition(
            f"model {found.info.name!r} needs {needed_bytes / 1e9:.1f} GB, {found.weight_bytes / 1e9:.1f} of them for "
            f"its weights in {found.precision}, but only {free_bytes / 1e9:.1f} GB are free; stop other programs, "
            "or use a smaller model",
            reason="GPU_MEMORY" if found.device == "cuda" else "MEMORY",
        )


def _read_pipeline(found: FoundPipeline, device: torch.device) -> Any:
    import diffusers

    folder = found.pipeline.folder
    pipeline_class = getattr(diffusers, found.pipeline.class_name)
    unused = dict.fromkeys(found.pipeline.family.unused_parts)
    with quiet_diffusers():
        try:
            pipeline = pipeline_class.from_pretrained(
                folder,
                torch_dtype={"default": _DTYPES[found.precision], "vae": torch.float32},
                use_safetensors=True,
                local_files_only=True,
                **unused,
            )
        except Exception as error:  # The library may raise anything for a strange file.
            problem = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise invalid_checkpoint(folder, f"diffusers can't load it ({problem})") from error
    tokens, embeddings = len(pipeline.tokenizer), pipeline.text_encoder.get_input_embeddings().weight.shape[0]
    if tokens > embeddings:
        raise invalid_checkpoint(
            folder / "tokenizer", f"the tokenizer has {tokens} tokens, but the text encoder embeds only {embeddings}"
        )
    return pipeline.to(device)
