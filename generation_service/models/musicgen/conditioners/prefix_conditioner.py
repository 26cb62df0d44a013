"""Puts melody, style and text before the codes, for models that read them there instead of through cross-attention.

Source: audiocraft 1.3.0, `modules/conditioners.py`, ConditionFuser, and `LMModel.generate`, which pads the null
condition to the same length. The double guidance of MusicGen-Style came after 1.3.0, in `LMModel._sample_next_token`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from dgx_music.errors import InvalidArgument
from generation_service.models.base import GenerationParameters, MetadataValue
from generation_service.models.musicgen.checkpoints.config import LmConfig
from generation_service.models.musicgen.checkpoints.prefixes.prefix_config import MAX_TEXT_TOKENS
from generation_service.models.musicgen.code_generator import Reservation
from generation_service.models.musicgen.conditioners.melody_conditioner import MelodyConditioner, SeparatedMelody
from generation_service.models.musicgen.conditioners.style_conditioner import StyleConditioner
from generation_service.models.musicgen.conditions import MAX_BRANCHES, Branch, Condition, WindowConditions


@dataclass(frozen=True, slots=True, eq=False)
class RequestPrefixes:
    """What the windows of a request read before their texts."""

    style: Tensor
    """[P, dim]; no positions in a model without."""
    melody: MelodyConditioner | None = None
    samples: SeparatedMelody | None = None
    """The melody, or None where the model is to hear silence."""
    window_frames: int = 0
    """Frames of audio in a window; 0 in a piece of one window."""
    text_guidance: float = 1.0
    """How much more the text counts than the style."""
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)

    def reserve(self, reservation: Reservation) -> Reservation:
        """What a request needs whose texts are part of the prefix. Raises InvalidArgument if they are too many."""
        if reservation.tokens > MAX_TEXT_TOKENS:
            problem = f"has {reservation.tokens} tokens; this model reads at most {MAX_TEXT_TOKENS}"
            raise InvalidArgument(reservation.longest_text, problem)
        branches = reservation.branches + (self.text_guidance != 1)
        if branches > MAX_BRANCHES:
            problem = f"with a style, this model is guided by at most {MAX_BRANCHES - 1} texts"
            raise InvalidArgument("conditioning.further_prompts", problem)
        melody = 0 if self.melody is None else len(self.melody.null)
        positions = reservation.positions + melody + len(self.style) + max(1, reservation.tokens)
        return Reservation(positions, branches=branches)

    def prepend(self, conditions: WindowConditions, start: int) -> WindowConditions:
        """The conditions of a window whose texts are part of the prefix, and which begins at frame `start` of the
        output."""
        own, null = [self.style], [torch.zeros_like(self.style)]
        if self.melody is not None:
            null.insert(0, self.melody.null)
            own.insert(0, self.melody.null if self.samples is None else self._encode_melody(self.samples, start))
        tokens = max(1, *(0 if each.text is None else len(each.text) for each in conditions.all()))
        branches = [replace(each, condition=_join(own, each.condition.text, tokens)) for each in conditions.branches]
        beta = self.text_guidance
        if beta != 1 and any(each.condition.text is not None for each in conditions.branches):
            branches = [
                replace(each, first_weight=beta * each.first_weight, last_weight=beta * each.last_weight)
                for each in branches
            ]
            branches.append(Branch(_join(own, None, tokens), 1 - beta, 1 - beta))
        return WindowConditions(tuple(branches), _join(null, conditions.negative.text, tokens))

    def prepare(self, starts: Iterable[int]) -> None:
        """Extracts what the windows that begin at these frames of the output read, for `prepend` to find it."""
        if self.melody is not None and self.samples is not None:
            for start in starts:
                self.melody.prepare(self.samples, start if self.window_frames else 0, self.window_frames)

    def _encode_melody(self, samples: SeparatedMelody, start: int) -> Tensor:
        assert self.melody is not None
        return self.melody.encode(samples, start if self.window_frames else 0, self.window_frames)


class PrefixConditioner:
    """Builds the prefixes of MusicGen-melody and MusicGen-Style. Any thread can call it."""

    def __init__(
        self,
        config: LmConfig,
        device: str | torch.device,
        melody: MelodyConditioner | None = None,
        style: StyleConditioner | None = None,
    ) -> None:
        self._melody = melody
        self._style = style
        self._window_frames = int(config.max_duration_seconds * config.sample_rate_hz)
        self._no_style = torch.zeros(0 if style is None else 1, config.dim, device=device)

    def encode(self, parameters: GenerationParameters, *, has_one_window: bool) -> RequestPrefixes:
        """Encodes melody and style, or finds them if they were encoded before.

        Raises InvalidArgument if the audio can't be used.
        """
        samples, style, text_guidance, metadata = None, self._no_style, 1.0, {}
        if self._melody is not None and parameters.melody is not None:
            if not len(parameters.melody):
                raise InvalidArgument("conditioning.melody.start_seconds", "nothing of the source is left after it")
            samples = self._melody.separate(parameters.melody)
            separator = self._melody.separator
            metadata["melody_separation"] = "none" if separator is None else separator.name
        if self._style is not None and parameters.style is not None:
            style = self._style.encode(parameters.style)
            text_guidance = parameters.style.text_guidance
        return RequestPrefixes(
            style=style,
            melody=self._melody,
            samples=samples,
            window_frames=0 if has_one_window else self._window_frames,
            text_guidance=text_guidance,
            metadata=metadata,
        )


def _join(prefix: list[Tensor], text: Tensor | None, tokens: int) -> Condition:
    """audiocraft pads the texts of a batch, the null condition's included, by zeros that it does not mask."""
    parts = prefix if text is None else [*prefix, text]
    return Condition(prefix=F.pad(torch.cat(parts), (0, 0, 0, tokens - (0 if text is None else len(text)))))
