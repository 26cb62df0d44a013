"""Runs audiocraft behind the engine's interface, as the reference that the native engine is measured against.

It reads the same folders, and also runs variants that the native engine does not support if only text conditions them.
Requests take turns on the device, because audiocraft's own batching changes results: it does not mask padded text. All
audio is returned at the end. Source: audiocraft 1.3.0, `models/lm.py` (LMModel.generate), `models/genmodel.py`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from dgx_music.errors import FailedPrecondition, InvalidArgument
from generation_service.models.base import FloatArray, GenerationParameters, MetadataValue, ModelInfo, Section
from generation_service.models.device_errors import is_out_of_memory
from generation_service.models.model_card import read_licence
from generation_service.models.musicgen.checkpoints.audiocraft_checkpoint import read_audiocraft
from generation_service.models.musicgen.checkpoints.checkpoint import COMPRESSION_FILE, LM_FILE, invalid_checkpoint

INSTALL_COMMAND: Final = "make setup-audiocraft"
STEPS_PER_TURN: Final = 5
"""audiocraft's decode steps in one `step`: few enough that other requests and a cancellation do not wait long, and
enough that a window of 30 s stays far below the engine's limit on steps without audio."""
_UNSAMPLED: Final = -1
"""The placeholder for a code that has not been sampled yet."""


@dataclass(slots=True)
class AudiocraftState:
    """The state of one request, which audiocraft keeps in local variables of its loop and in its modules."""

    frames: int
    """The number of audio frames to produce."""
    sampling: Mapping[str, Any]
    """Keyword arguments of `LMModel._sample_next_token`."""
    conditions: Any
    """`ConditionTensors` of the prompt and of the empty prompt, for classifier-free guidance."""
    pattern: Any
    sequence: Tensor  # [1, K, S], codes in the order of the delay pattern
    mask: Tensor  # [K, S], whether the pattern has a code there
    offset: int
    """The step of the sequence that is sampled next."""
    rng_state: Tensor
    """The state of the random number generator."""
    previous_offset: int = 0
    streaming_state: dict[str, Tensor] = field(default_factory=dict)
    """The KV cache and positions, by module."""
    is_finished: bool = False
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)
    sections: Sequence[Section] = ()


class Audiocraft:
    """Implements `generation_service.models.base.Model`. Built by `load_audiocraft`."""

    def __init__(self, info: ModelInfo, musicgen: Any) -> None:
        """`musicgen` is an `audiocraft.models.MusicGen`."""
        self._info = info
        self._musicgen = musicgen
        self._lm = musicgen.lm
        self._device = torch.device(musicgen.device)
        self._rng = torch if self._device.type == "cpu" else torch.cuda
        self._hop_frames = round(musicgen.sample_rate / musicgen.frame_rate)

    @property
    def info(self) -> ModelInfo:
        return self._info

    @torch.no_grad()
    def prefill(self, parameters: GenerationParameters) -> AudiocraftState:
        """Encodes the prompt. Raises InvalidArgument if more frames are requested than fit into one window."""
        from audiocraft.modules.conditioners import ClassifierFreeGuidanceDropout

        limit = round(self._info.max_duration_seconds * self._info.sample_rate_hz)
        if parameters.frames > limit:
            problem = f"must be at most {limit} frames for this model, not {parameters.frames}"
            raise InvalidArgument("duration_seconds", problem)
        attributes, _ = self._musicgen._prepare_tokens_and_attributes([parameters.prompt], None)
        provider = self._lm.condition_provider
        with self._musicgen.autocast:
            conditions = provider(provider.tokenize(attributes + ClassifierFreeGuidanceDropout(p=1.0)(attributes)))
        count = math.ceil(parameters.frames / self._hop_frames)
        pattern = self._lm.pattern_provider.get_pattern(count)
        codes = torch.full((1, self._lm.num_codebooks, count), _UNSAMPLED, device=self._device)
        sequence, _, mask = pattern.build_pattern_sequence(codes, self._lm.special_token_id)
        return AudiocraftState(
            frames=parameters.frames,
            sampling={
                "use_sampling": True,
                "temp": parameters.temperature,
                "top_k": min(parameters.top_k, self._lm.card),  # audiocraft fails if it exceeds the number of tokens.
                "top_p": parameters.top_p,
                "cfg_coef": parameters.guidance_scale,
                "two_step_cfg": False,
            },
            conditions=conditions,
            pattern=pattern,
            sequence=sequence,
            mask=mask,
            offset=pattern.get_first_step_with_timesteps(0),
            rng_state=torch.Generator(self._device).manual_seed(parameters.seed).get_state(),
        )

    @torch.no_grad()
    def step(self, states: Sequence[AudiocraftState]) -> list[FloatArray]:
        """Runs one turn of each state. The last turn of a state returns all its audio, float32 [frames, channels]."""
        return [self._run_turn(state) for state in states]

    def release(self, state: AudiocraftState) -> None:
        """Frees the KV cache."""
        state.streaming_state = {}

    def _run_turn(self, state: AudiocraftState) -> FloatArray:
        length = state.sequence.shape[-1]
        if not state.is_finished:
            self._rng.set_rng_state(state.rng_state)  # audiocraft uses torch's global generator.
            with self._musicgen.autocast, self._lm.streaming():
                self._lm.set_streaming_state(state.streaming_state)
                for _ in range(min(STEPS_PER_TURN, length - state.offset)):
                    self._sample_codes(state)
                state.streaming_state = self._lm.get_streaming_state()
            state.rng_state = self._rng.get_rng_state()
            if state.offset == length:
                state.is_finished = True
                return self._decode(state)
        return np.zeros((0, self._info.channels), np.float32)

    def _sample_codes(self, state: AudiocraftState) -> None:
        """Samples one code of every codebook, like the body of the loop in `LMModel.generate`."""
        token = self._lm._sample_next_token(  # [1, K, 1]
            state.sequence[..., state.previous_offset : state.offset], state.conditions, {}, **state.sampling
        )
        valid = state.mask[:, state.offset]  # [K]
        state.sequence[0, valid, state.offset] = token[0, valid, 0]
        state.previous_offset = state.offset
        state.offset += 1

    def _decode(self, state: AudiocraftState) -> FloatArray:
        codes, _, _ = state.pattern.revert_pattern_sequence(state.sequence, special_token=_UNSAMPLED)
        audio: Tensor = self._musicgen.generate_audio(codes)[0]  # [channels, n]
        return audio.T[: state.frames].float().cpu().contiguous().numpy()


def find_audiocraft(folder: Path, *, name: str | None = None, device: str = "cpu") -> ModelInfo:
    """Reads the model's properties from the folder, without the weights. Does not need audiocraft to be installed.

    Raises FailedPrecondition if a file is missing, truncated or not in audiocraft's format.
    """
    checkpoint = read_audiocraft(folder / LM_FILE)
    checkpoint.open_codec()  # It raises if files are missing.
    config = checkpoint.config
    if (found := config.get("lm_model")) not in (None, "transformer_lm"):
        problem = f"lm_model is {found!r}, which this engine does not run; set DGX_MUSIC_ENGINE to native"
        raise invalid_checkpoint(checkpoint.path, problem)
    try:
        is_stereo = bool(config.get("interleave_stereo_codebooks", {}).get("use"))
        layers, dim = (int(config["transformer_lm"][key]) for key in ("num_layers", "dim"))
        sample_rate_hz = int(config["sample_rate"])
        max_duration_seconds = float(config["dataset"]["segment_duration"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise invalid_checkpoint(
            checkpoint.path, f"xp.cfg does not describe a MusicGen language model ({error!r})"
        ) from error
    precision = "fp32" if device == "cpu" else "fp16"  # What `audiocraft.models.loaders` chooses.
    return ModelInfo(
        name=name or folder.resolve().name,
        version=f"{checkpoint.digest}-audiocraft-{precision}",
        description=f"MusicGen run by audiocraft, {layers} layers of {dim}, {'stereo' if is_stereo else 'mono'}.",
        licence=read_licence(folder, name or folder.resolve().name),
        sample_rate_hz=sample_rate_hz,
        channels=2 if is_stereo else 1,
        max_duration_seconds=max_duration_seconds,
        is_synthesiser=False,
    )


def load_audiocraft(folder: Path, *, name: str | None = None, device: str = "cpu") -> Audiocraft:
    """Loads the model in the folder. audiocraft reads T5 from the Hugging Face cache or downloads it from the hub.

    Raises FailedPrecondition if audiocraft is not installed (AUDIOCRAFT_MISSING) or cannot load the files.
    """
    info = find_audiocraft(folder, name=name, device=device)
    try:
        from audiocraft.models import loaders
        from audiocraft.models.musicgen import MusicGen
        from transformers.utils import logging
    except (ImportError, OSError) as error:  # OSError: a shared library belongs to another build of torch.
        raise FailedPrecondition(
            f"audiocraft can't be imported ({_cause(error)}); run `{INSTALL_COMMAND}`, or set DGX_MUSIC_ENGINE=native",
            reason="AUDIOCRAFT_MISSING",
        ) from error
    transformers_logging: Any = logging  # Keep progress bars out of the server's log.
    transformers_logging.disable_progress_bar()
    lm = _load(loaders.load_lm_model, folder, device, "TEXT_ENCODER_MISSING", "T5 (run `hf download t5-base`)")
    codec_part = f"the codec that {COMPRESSION_FILE} refers to"
    with warnings.catch_warnings():
        # audiocraft builds its codec with a deprecated function of torch, which its users cannot change.
        warnings.filterwarnings("ignore", "`torch.nn.utils.weight_norm` is deprecated", FutureWarning)
        codec = _load(loaders.load_compression_model, folder, device, "CHECKPOINT_MISSING", codec_part)
    return Audiocraft(info, MusicGen(info.name, codec, lm))


def _load(load: Callable[..., Any], folder: Path, device: str, reason: str, part: str) -> Any:
    """Runs one of audiocraft's loaders. `part` names what it reads from elsewhere than the folder, and `reason` is the
    reason of the error if audiocraft does not find that."""
    try:
        return load(str(folder), device=device)
    except OSError as error:
        raise FailedPrecondition(
            f"{folder}: audiocraft found {part} neither in the Hugging Face cache nor on the hub: {_cause(error)}",
            reason=reason,
        ) from error
    except Exception as error:  # audiocraft's builders raise exceptions of any type for unsupported configurations.
        if is_out_of_memory(error):
            raise
        raise invalid_checkpoint(
            folder, f"audiocraft can't load it ({type(error).__name__}: {_cause(error)})"
        ) from error


def _cause(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]
