"""audiocraft itself behind the engine's interface: the reference that the native engine is measured against.

It reads the same folders, and runs variants that the native engine does not know, as far as text alone conditions them.
Requests take turns on the device, since audiocraft's own batching changes results: it does not mask padded text.
Sound comes at the end only, all at once. Source: audiocraft 1.3.0, `models/lm.py` (LMModel.generate),
`models/genmodel.py`.
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
from generation_service.models.base import FloatArray, GenerationParameters, MetadataValue, ModelInfo
from generation_service.models.device_errors import is_out_of_memory
from generation_service.models.musicgen.checkpoints.checkpoint import (
    COMPRESSION_FILE,
    LM_FILE,
    file_digest,
    invalid_checkpoint,
    read_checkpoint,
)
from generation_service.models.musicgen.loader import LICENCE

INSTALL_COMMAND: Final = "make setup-audiocraft"
TURN_STEPS: Final = 5
"""Decode steps of audiocraft's in one of ours: so few that the others' turns and a cancel come soon, so many that a
window of 30 s stays far below the engine's limit of steps without a sound."""
_UNKNOWN: Final = -1
"""A code that is not drawn yet."""


@dataclass(slots=True)
class AudiocraftState:
    """One request: what audiocraft's loop has in local variables and in its modules."""

    frames: int
    """Of audio."""
    sampling: Mapping[str, Any]
    """Keyword arguments of `LMModel._sample_next_token`."""
    conditions: Any
    """`ConditionTensors`, of the prompt and of none."""
    pattern: Any
    sequence: Tensor  # [1, K, S], codes as the pattern delays them
    mask: Tensor  # [K, S], where there is a code
    offset: int
    """The step of the sequence that is drawn next."""
    random: Tensor
    """State of the random numbers."""
    previous: int = 0
    streaming: dict[str, Tensor] = field(default_factory=dict)
    """KV cache and positions, by module."""
    is_done: bool = False
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)


class Audiocraft:
    """Implements `generation_service.models.base.Model`. Made by `load_audiocraft`."""

    def __init__(self, info: ModelInfo, musicgen: Any) -> None:
        """`musicgen`: an `audiocraft.models.MusicGen`."""
        self._info = info
        self._musicgen = musicgen
        self._lm = musicgen.lm
        self._device = torch.device(musicgen.device)
        self._random = torch if self._device.type == "cpu" else torch.cuda
        self._hop_frames = round(musicgen.sample_rate / musicgen.frame_rate)

    @property
    def info(self) -> ModelInfo:
        return self._info

    @torch.no_grad()
    def prefill(self, parameters: GenerationParameters) -> AudiocraftState:
        """Encode the prompt. Raises InvalidArgument for more frames than a window has."""
        from audiocraft.modules.conditioners import ClassifierFreeGuidanceDropout

        limit = round(self._info.max_duration_seconds * self._info.sample_rate_hz)
        if parameters.frames > limit:
            raise InvalidArgument("duration_seconds", f"{parameters.frames} frames; this model makes at most {limit}")
        attributes, _ = self._musicgen._prepare_tokens_and_attributes([parameters.prompt], None)
        provider = self._lm.condition_provider
        with self._musicgen.autocast:
            conditions = provider(provider.tokenize(attributes + ClassifierFreeGuidanceDropout(p=1.0)(attributes)))
        count = math.ceil(parameters.frames / self._hop_frames)
        pattern = self._lm.pattern_provider.get_pattern(count)
        codes = torch.full((1, self._lm.num_codebooks, count), _UNKNOWN, device=self._device)
        sequence, _, mask = pattern.build_pattern_sequence(codes, self._lm.special_token_id)
        return AudiocraftState(
            frames=parameters.frames,
            sampling={
                "use_sampling": True,
                "temp": parameters.temperature,
                "top_k": min(parameters.top_k, self._lm.card),  # More than there are is an error to audiocraft.
                "top_p": parameters.top_p,
                "cfg_coef": parameters.guidance_scale,
                "two_step_cfg": False,
            },
            conditions=conditions,
            pattern=pattern,
            sequence=sequence,
            mask=mask,
            offset=pattern.get_first_step_with_timesteps(0),
            random=torch.Generator(self._device).manual_seed(parameters.seed).get_state(),
        )

    @torch.no_grad()
    def step(self, states: Sequence[AudiocraftState]) -> list[FloatArray]:
        """A turn for each, one after the other; audio, [frames, channels], after the last."""
        return [self._turn(state) for state in states]

    def release(self, state: AudiocraftState) -> None:
        """Free the KV cache."""
        state.streaming = {}

    def _turn(self, state: AudiocraftState) -> FloatArray:
        length = state.sequence.shape[-1]
        if not state.is_done:
            self._random.set_rng_state(state.random)  # audiocraft draws from torch's global generator.
            with self._musicgen.autocast, self._lm.streaming():
                self._lm.set_streaming_state(state.streaming)
                for _ in range(min(TURN_STEPS, length - state.offset)):
                    self._draw(state)
                state.streaming = self._lm.get_streaming_state()
            state.random = self._random.get_rng_state()
            if state.offset == length:
                state.is_done = True
                return self._decode(state)
        return np.zeros((0, self._info.channels), np.float32)

    def _draw(self, state: AudiocraftState) -> None:
        """One more code of every codebook: the body of the loop in `LMModel.generate`."""
        token = self._lm._sample_next_token(  # [1, K, 1]
            state.sequence[..., state.previous : state.offset], state.conditions, {}, **state.sampling
        )
        drawn = state.mask[:, state.offset]  # [K]
        state.sequence[0, drawn, state.offset] = token[0, drawn, 0]
        state.previous = state.offset
        state.offset += 1

    def _decode(self, state: AudiocraftState) -> FloatArray:
        codes, _, _ = state.pattern.revert_pattern_sequence(state.sequence, special_token=_UNKNOWN)
        audio: Tensor = self._musicgen.generate_audio(codes)[0]  # [channels, n]
        return audio.T[: state.frames].float().cpu().contiguous().numpy()


def find_audiocraft(folder: Path, *, name: str | None = None, device: str = "cpu") -> ModelInfo:
    """Reads what the folder says of itself, not the weights; audiocraft itself is not needed for that.

    Raises FailedPrecondition for files that are missing, truncated or not audiocraft's.
    """
    checkpoint = read_checkpoint(folder / LM_FILE)
    config = checkpoint.config
    try:
        is_stereo = bool(config.get("interleave_stereo_codebooks", {}).get("use"))
        layers, dim = (int(config["transformer_lm"][key]) for key in ("num_layers", "dim"))
        sample_rate_hz = int(config["sample_rate"])
        max_duration_seconds = float(config["dataset"]["segment_duration"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise invalid_checkpoint(checkpoint.path, f"xp.cfg is of no MusicGen language model ({error!r})") from error
    precision = "fp32" if device == "cpu" else "fp16"  # As `audiocraft.models.loaders` chooses.
    return ModelInfo(
        name=name or folder.resolve().name,
        version=f"{checkpoint.digest}-{file_digest(folder / COMPRESSION_FILE)}-audiocraft-{precision}",
        description=f"MusicGen by audiocraft, {layers} layers of {dim}, {'stereo' if is_stereo else 'mono'}.",
        licence=LICENCE,
        sample_rate_hz=sample_rate_hz,
        channels=2 if is_stereo else 1,
        max_duration_seconds=max_duration_seconds,
        is_synthesiser=False,
    )


def load_audiocraft(folder: Path, *, name: str | None = None, device: str = "cpu") -> Audiocraft:
    """Brings the folder's model into memory. audiocraft takes T5 from the Hugging Face cache, else from the hub.

    Raises FailedPrecondition where audiocraft is not installed (AUDIOCRAFT_MISSING), or can't load the files.
    """
    info = find_audiocraft(folder, name=name, device=device)
    try:
        from audiocraft.models import loaders
        from audiocraft.models.musicgen import MusicGen
        from transformers.utils import logging
    except (ImportError, OSError) as error:  # OSError: a library of another build of torch.
        raise FailedPrecondition(
            f"audiocraft can't be imported ({_cause(error)}); {INSTALL_COMMAND}, or take the native engine",
            reason="AUDIOCRAFT_MISSING",
        ) from error
    quiet: Any = logging  # Otherwise it draws progress bars into the server's log.
    quiet.disable_progress_bar()
    lm = _load(loaders.load_lm_model, folder, device, "TEXT_ENCODER_MISSING", "T5: hf download t5-base")
    named = f"the codec that {COMPRESSION_FILE} names"
    with warnings.catch_warnings():
        # audiocraft builds its codec with what torch has deprecated; nobody who runs it can help that.
        warnings.filterwarnings("ignore", "`torch.nn.utils.weight_norm` is deprecated", FutureWarning)
        codec = _load(loaders.load_compression_model, folder, device, "CHECKPOINT_MISSING", named)
    return Audiocraft(info, MusicGen(info.name, codec, lm))


def _load(load: Callable[..., Any], folder: Path, device: str, reason: str, part: str) -> Any:
    """`part`: what of it is not in the folder, and is missing, with `reason`, where audiocraft does not find it."""
    try:
        return load(str(folder), device=device)
    except OSError as error:
        raise FailedPrecondition(
            f"{folder}: audiocraft finds neither in the Hugging Face cache nor on the hub {part} ({_cause(error)})",
            reason=reason,
        ) from error
    except Exception as error:  # Its builders raise what they like for what they do not know.
        if is_out_of_memory(error):
            raise
        raise invalid_checkpoint(
            folder, f"audiocraft can't load it ({type(error).__name__}: {_cause(error)})"
        ) from error


def _cause(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]
