"""Puts melody, style and text before the codes, for models that read them there instead of through cross-attention.

Source: audiocraft 1.3.0, `modules/conditioners.py`, ConditionFuser, and `LMModel.generate`, which pads the null
condition to the same length. The double guidance of MusicGen-Style is in audiocraft 1.4, `LMModel._sample_next_token`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from dgx_music.errors import InvalidArgument
from generation_service.models.base import GenerationParameters, MetadataValue
from generation_service.models.musicgen.checkpoints.config import LmConfig
from generation_service.models.musicgen.checkpoints.prefixes.prefix_config import MAX_TEXT_TOKENS
from generation_service.models.musicgen.conditioners.melody_conditioner import MelodyConditioner
from generation_service.models.musicgen.conditioners.style_conditioner import StyleConditioner
from generation_service.models.musicgen.conditions import MAX_BRANCHES, Branch, Condition, WindowConditions


@dataclass(frozen=True, slots=True, eq=False)
class RequestPrefixes:
    """What the windows of a request read before their texts."""

    windows: list[Tensor]
    """[P, dim] for each window, or one for all."""
    null: Tensor
    """[P, dim], the same for the negative condition."""
    text_guidance: float = 1.0
    """How much more the text counts than the style."""


class PrefixConditioner:
    """Builds the prefixes of MusicGen-melody and MusicGen-Style. Any thread can call it."""

    def __init__(
        self,
        config: LmConfig,
        device: str | torch.device,
        melody: MelodyConditioner | None = None,
        style: StyleConditioner | None = None,
    ) -> None:
        self._config = config
        self._device = torch.device(device)
        self._melody = melody
        self._style = style
        self._window_frames = int(config.max_duration_seconds * config.sample_rate_hz)

    def encode(self, parameters: GenerationParameters, starts: Sequence[int]) -> RequestPrefixes:
        """Encodes melody and style, or finds them if they were encoded before.

        `starts` are the first frames of the windows, counted in the output; one of 0 stands for a piece of one window.
        Raises InvalidArgument if the audio can't be used.
        """
        windows, nulls, text_guidance = [torch.zeros(0, self._config.dim, device=self._device)], [], 1.0
        if self._melody is not None:
            nulls.append(self._melody.null)
            windows = [self._melody.null]
            if parameters.melody is not None:
                own_starts = () if list(starts) == [0] else starts
                windows = self._melody.encode(parameters.melody, own_starts, self._window_frames)
        if self._style is not None:
            style = torch.zeros(1, self._config.dim, device=self._device)
            nulls.append(style)
            if parameters.style is not None:
                style = self._style.encode(parameters.style)
                nulls[-1] = torch.zeros_like(style)
                text_guidance = parameters.style.text_guidance
            windows = [torch.cat([window, style]) for window in windows]
        return RequestPrefixes(windows, torch.cat(nulls), text_guidance)

    def prepend(self, conditions: WindowConditions, prefixes: RequestPrefixes, window: int) -> WindowConditions:
        """The conditions of a window whose texts are part of the prefix. Raises InvalidArgument for too many texts."""
        own = prefixes.windows[min(window, len(prefixes.windows) - 1)]
        tokens = max(1, *(0 if each.text is None else len(each.text) for each in conditions.all()))
        if tokens > MAX_TEXT_TOKENS:
            raise InvalidArgument("prompt", f"has {tokens} tokens; this model reads at most {MAX_TEXT_TOKENS}")
        branches = [
            replace(branch, condition=self._join(own, branch.condition.text, tokens)) for branch in conditions.branches
        ]
        beta = prefixes.text_guidance
        if beta != 1 and any(branch.condition.text is not None for branch in conditions.branches):
            if len(branches) == MAX_BRANCHES:
                problem = f"with a style, this model is guided by at most {MAX_BRANCHES - 1} texts at once"
                raise InvalidArgument("conditioning.further_prompts", problem)
            branches = [
                replace(each, first_weight=beta * each.first_weight, last_weight=beta * each.last_weight)
                for each in branches
            ]
            branches.append(Branch(self._join(own, None, tokens), 1 - beta, 1 - beta))
        return WindowConditions(tuple(branches), self._join(prefixes.null, conditions.negative.text, tokens))

    def metadata(self, parameters: GenerationParameters) -> dict[str, MetadataValue]:
        """What is to be known of a request's melody."""
        if self._melody is None or parameters.melody is None:
            return {}
        separator = self._melody.separator
        return {"melody_separation": separator.name if separator is not None else "none"}

    def _join(self, prefix: Tensor, text: Tensor | None, tokens: int) -> Condition:
        """audiocraft pads the texts of a batch, the null condition's included, by zeros that it does not mask."""
        text = prefix[:0] if text is None else text
        return Condition(prefix=F.pad(torch.cat([prefix, text]), (0, 0, 0, tokens - len(text))))
