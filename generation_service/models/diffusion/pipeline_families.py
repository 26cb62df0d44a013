"""The pipelines of diffusers that this engine runs: their parts, and what their configurations say."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dgx_music.limits import MAX_SAMPLE_RATE_HZ, MIN_SAMPLE_RATE_HZ
from generation_service.models.base import Capability
from generation_service.models.musicgen.checkpoints.checkpoint import invalid_checkpoint

MAX_LAYERS = 512
"""More of anything that is repeated would take long to build, only to be found not to fit the weights."""
ACE_STEP_SECONDS = 600.0
"""The longest piece that ACE-Step 1.5 was trained for."""
TOKENIZERS = ("Tokenizer", "TokenizerFast", "TokenizersBackend")
"""How the names of transformers' tokenizers end."""


@dataclass(frozen=True, slots=True)
class Part:
    """A component of a pipeline. Only these classes are ever imported, whatever a folder names."""

    library: str
    """ "diffusers", "transformers", or the package of the pipeline in diffusers."""
    class_names: tuple[str, ...]
    """The classes that it may have; empty for a tokenizer."""

    @property
    def is_tokenizer(self) -> bool:
        return not self.class_names

    def accepts(self, library: object, class_name: object) -> bool:
        """Whether the component may be of this class."""
        if library != self.library or not isinstance(class_name, str):
            return False
        return class_name in self.class_names or (self.is_tokenizer and class_name.endswith(TOKENIZERS))


@dataclass(frozen=True, slots=True)
class PipelineFacts:
    """What the configurations of a pipeline say."""

    sample_rate_hz: int
    channels: int
    hop_frames: int
    """Audio frames per latent."""
    context_latents: int
    """How many latents on each side the audio of a latent depends on."""
    max_duration_seconds: float
    default_steps: int
    default_guidance_scale: float
    capabilities: frozenset[Capability]
    description: str
    """Without its full stop."""


class Configs:
    """The configurations of a pipeline's components."""

    def __init__(self, folder: Path, configs: Mapping[str, Mapping[str, Any]]) -> None:
        self._folder = folder
        self._configs = configs

    def path(self, part: str) -> Path:
        return self._folder / part / "config.json"

    def get(self, part: str, key: str, default: Any = None) -> Any:
        return self._configs[part].get(key, default)

    def integer(self, part: str, key: str, least: int, most: int, default: int | None = None) -> int:
        """Returns an integer in a range. Raises FailedPrecondition if the configuration has none."""
        value = self.get(part, key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise invalid_checkpoint(
                self.path(part), f"{key} must be an integer from {least} to {most}, not {_quote(value)}"
            )
        return value

    def integers(self, part: str, key: str, least: int, most: int) -> Sequence[int]:
        """Returns a list of up to 16 integers in a range. Raises FailedPrecondition if the configuration has none."""
        values = self.get(part, key)
        if not isinstance(values, list) or not 1 <= len(values) <= 16:
            raise invalid_checkpoint(self.path(part), f"{key} must be a list of integers, not {_quote(values)}")
        if not all(type(value) is int and least <= value <= most for value in values):
            raise invalid_checkpoint(
                self.path(part), f"{key} must have integers from {least} to {most}, not {_quote(values)}"
            )
        return values

    def check_equal(self, part: str, key: str, other: str, other_key: str) -> None:
        """Raises FailedPrecondition unless two components have the same number there."""
        value, expected = self.get(part, key), self.get(other, other_key)
        if value != expected:
            raise invalid_checkpoint(
                self.path(part), f"{key} is {_quote(value)}, but {other_key} of {other} is {_quote(expected)}"
            )


def _quote(value: object) -> str:
    return repr(value)[:60]


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of pipeline."""

    title: str
    parts: Mapping[str, Part]
    unused_parts: tuple[str, ...]
    """Components that text-to-music does not need. They are not loaded."""
    read: Callable[[Configs], PipelineFacts]


_TOKENIZER = Part("transformers", ())
_FLOW_SCHEDULER = Part("diffusers", ("FlowMatchEulerDiscreteScheduler",))


def _oobleck(configs: Configs) -> tuple[int, int]:
    """Returns the hop of a vae in audio frames, and its context in latents."""
    ratios = configs.integers("vae", "downsampling_ratios", 2, 64)
    if any(ratio % 2 for ratio in ratios):  # Its transposed convolution would yield a frame less than a multiple.
        raise invalid_checkpoint(configs.path("vae"), f"downsampling_ratios must be even, not {ratios}")
    # From the end: the last convolution reads 3 positions on each side; three residual units, with kernels of 7 dilated
    # by 1, 3 and 9, read 39; a transposed convolution reads 1 of its input's; and the first convolution 3 latents.
    context = 3
    for ratio in ratios:
        context = 1 + math.ceil((context + 39) / ratio)
    return math.prod(ratios), context + 3


def _rate_and_channels(configs: Configs) -> tuple[int, int]:
    rate = configs.integer("vae", "sampling_rate", MIN_SAMPLE_RATE_HZ, MAX_SAMPLE_RATE_HZ)
    return rate, configs.integer("vae", "audio_channels", 1, 2)


def _read_stable_audio(configs: Configs) -> PipelineFacts:
    configs.check_equal("transformer", "in_channels", "vae", "decoder_input_channels")
    configs.check_equal("projection_model", "text_encoder_dim", "text_encoder", "d_model")
    rate, channels = _rate_and_channels(configs)
    hop, context = _oobleck(configs)
    layers = configs.integer("transformer", "num_layers", 1, MAX_LAYERS)
    seconds = configs.integer("transformer", "sample_size", 1, 1 << 16) * hop / rate
    longest = configs.integer("projection_model", "max_value", 1, 3600)
    return PipelineFacts(
        sample_rate_hz=rate,
        channels=channels,
        hop_frames=hop,
        context_latents=context,
        max_duration_seconds=math.floor(min(seconds, longest) * 100) / 100,
        default_steps=100,
        default_guidance_scale=7.0,
        capabilities=frozenset({Capability.STEPS, Capability.NEGATIVE_PROMPT}),
        description=f"Stable Audio, {layers} layers, latent diffusion",
    )


def _read_stable_audio_3(configs: Configs) -> PipelineFacts:
    configs.check_equal("transformer", "io_channels", "vae", "latent_dim")
    rate, channels = _rate_and_channels(configs)
    strides = configs.integers("vae", "encoder_strides", 1, 64)
    depths = configs.integers("vae", "encoder_transformer_depths", 1, MAX_LAYERS)
    hop = configs.integer("vae", "patch_size", 1, 4096) * math.prod(strides)
    # Each layer attends to so many latents on each side, of the rate of its level or a higher one.
    context = sum(depths) * configs.integer("vae", "sliding_window", 1, 64, 1)
    layers = configs.integer("transformer", "depth", 1, MAX_LAYERS)
    seconds = configs.get("duration_embedder", "max_val", 384.0)
    if not isinstance(seconds, int | float) or not 1 <= seconds <= 3600:
        raise invalid_checkpoint(configs.path("duration_embedder"), f"max_val must be 1 to 3600, not {_quote(seconds)}")
    is_distilled = bool(configs.get("scheduler", "stochastic_sampling", False))
    capabilities = {Capability.STEPS} if is_distilled else {Capability.STEPS, Capability.NEGATIVE_PROMPT}
    return PipelineFacts(
        sample_rate_hz=rate,
        channels=channels,
        hop_frames=hop,
        context_latents=context,
        max_duration_seconds=float(seconds),
        default_steps=8 if is_distilled else 100,
        default_guidance_scale=1.0,
        capabilities=frozenset(capabilities),
        description=f"Stable Audio 3, {layers} layers, rectified flow{', distilled' if is_distilled else ''}",
    )


def _read_ace_step(configs: Configs) -> PipelineFacts:
    configs.check_equal("transformer", "audio_acoustic_hidden_dim", "vae", "decoder_input_channels")
    configs.check_equal("condition_encoder", "text_hidden_dim", "text_encoder", "hidden_size")
    rate, channels = _rate_and_channels(configs)
    hop, context = _oobleck(configs)
    layers = configs.integer("transformer", "num_hidden_layers", 1, MAX_LAYERS)
    is_turbo = configs.get("transformer", "is_turbo") is True or configs.get("transformer", "model_version") == "turbo"
    return PipelineFacts(
        sample_rate_hz=rate,
        channels=channels,
        hop_frames=hop,
        context_latents=context,
        max_duration_seconds=ACE_STEP_SECONDS,
        default_steps=8 if is_turbo else 50,
        default_guidance_scale=1.0 if is_turbo else 7.0,
        capabilities=frozenset({Capability.STEPS, Capability.LYRICS}),
        description=f"ACE-Step{' turbo' if is_turbo else ''}, {layers} layers, flow matching",
    )


FAMILIES: Mapping[str, Family] = {
    "StableAudioPipeline": Family(
        title="Stable Audio",
        parts={
            "vae": Part("diffusers", ("AutoencoderOobleck",)),
            "text_encoder": Part("transformers", ("T5EncoderModel",)),
            "projection_model": Part("stable_audio", ("StableAudioProjectionModel",)),
            "tokenizer": _TOKENIZER,
            "transformer": Part("diffusers", ("StableAudioDiTModel",)),
            "scheduler": Part("diffusers", ("CosineDPMSolverMultistepScheduler", "EDMDPMSolverMultistepScheduler")),
        },
        unused_parts=(),
        read=_read_stable_audio,
    ),
    "StableAudio3Pipeline": Family(
        title="Stable Audio 3",
        parts={
            "vae": Part("diffusers", ("AutoencoderSAME",)),
            "text_encoder": Part("transformers", ("T5GemmaEncoderModel",)),
            "tokenizer": _TOKENIZER,
            "duration_embedder": Part("stable_audio_3", ("StableAudio3DurationEmbedder",)),
            "transformer": Part("diffusers", ("StableAudio3DiTModel",)),
            "scheduler": _FLOW_SCHEDULER,
        },
        unused_parts=(),
        read=_read_stable_audio_3,
    ),
    "AceStepPipeline": Family(
        title="ACE-Step",
        parts={
            "vae": Part("diffusers", ("AutoencoderOobleck",)),
            "text_encoder": Part("transformers", ("Qwen3Model",)),
            "tokenizer": _TOKENIZER,
            "transformer": Part("diffusers", ("AceStepTransformer1DModel",)),
            "condition_encoder": Part("ace_step", ("AceStepConditionEncoder",)),
            "scheduler": _FLOW_SCHEDULER,
        },
        unused_parts=("audio_tokenizer", "audio_token_detokenizer"),
        read=_read_ace_step,
    ),
}
"""Class of a pipeline, as in model_index.json → its kind."""
