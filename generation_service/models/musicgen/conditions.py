"""What the language model is conditioned on in one window of codes.

Everything is a case of one formula. With the logits of a few conditional branches and those of one negative branch,

    guided = negative + guidance_scale * (sum of weight_i * branch_i - negative)

is classifier-free guidance (Ho & Salimans 2022) for one branch and an empty negative condition; with a text in the
negative condition it guides away from that (Sanchez et al. 2023); with several branches it composes texts (Liu et al.
2022, "Compositional Visual Generation with Composable Diffusion Models"); with weights that change over the window it
passes from one text to another; and with the weights s and 1 - s for text with style and for style alone, it is
MusicGen-Style's double guidance (Rouard et al. 2024).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MAX_BRANCHES = 4


@dataclass(frozen=True, slots=True, eq=False)
class Condition:
    """What a branch reads besides its codes. The tensors are shared: they must not be modified."""

    text: Tensor | None = None
    """[T, dim], which cross-attention attends to. None, for no text: cross-attention adds 0."""
    prefix: Tensor | None = None
    """[P, dim], what the model reads at the positions before the codes, or None. All branches of a window have the same
    P; a negative condition without a prefix has one of zeros."""


@dataclass(frozen=True, slots=True, eq=False)
class Branch:
    """A condition and how much it counts, which changes linearly from the first new frame of the window to its end."""

    condition: Condition
    first_weight: float = 1.0
    last_weight: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class WindowConditions:
    """The conditions of one window. The branches' weights add up to 1 in each frame."""

    branches: tuple[Branch, ...]
    """1 to `MAX_BRANCHES`."""
    negative: Condition = Condition()

    @classmethod
    def from_text(cls, text: Tensor | None) -> WindowConditions:
        """One branch, and an empty negative condition."""
        return cls((Branch(Condition(text)),))

    def all(self) -> tuple[Condition, ...]:
        """Those of the branches, then the negative one."""
        return (*(branch.condition for branch in self.branches), self.negative)

    @property
    def prefix_positions(self) -> int:
        """P, 0 without a prefix."""
        prefix = self.branches[0].condition.prefix
        return 0 if prefix is None else len(prefix)

    def stack_prefixes(self) -> Tensor | None:
        """[branches + 1, P, dim]: those of the branches and of the negative condition; None without prefixes."""
        prefixes = [each.prefix for each in self.all()]
        if (first := prefixes[0]) is None:
            return None
        return torch.stack([torch.zeros_like(first) if prefix is None else prefix for prefix in prefixes])

    def weights_at(self, progress: float) -> tuple[float, ...]:
        """The branches' weights after this part, 0 to 1, of the window's new frames."""
        return tuple(each.first_weight + (each.last_weight - each.first_weight) * progress for each in self.branches)
