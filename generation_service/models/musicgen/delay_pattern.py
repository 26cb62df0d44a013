"""The delay pattern: codebook k runs `delays[k]` frames behind, so that one step makes codes of several frames.

Source: audiocraft 1.3.0, `modules/codebooks_patterns.py`, DelayedPatternProvider (Copet et al. 2023, "Simple and
Controllable Music Generation", 2.2). For K = 4 and delays 0, 1, 2, 3, with N for "none":

    step   0  1  2  3  4 …
    k = 0  N  0  1  2  3 …      the frame that each step's code is of
    k = 1  N  N  0  1  2 …
    k = 2  N  N  N  0  1 …
    k = 3  N  N  N  N  0 …
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class DelayedCodes:
    """The codes of one sequence, as they are made. Step 0 is given; `add` makes one more."""

    def __init__(self, delays: Sequence[int], frames: int, none: int, given: Tensor | None = None) -> None:
        """`frames` in all; `none` is the code that stands for none. given: int64 [K, n], the first n frames.

        All steps that only have codes of given frames count as added.
        """
        self._delays = tuple(delays)
        self._frames = frames
        self._given = 0 if given is None else given.shape[1]
        self.steps = frames + max(delays)
        """Steps there are in all, and inputs that the model reads."""
        self.step = self._given
        """Steps added so far."""
        self._codes = torch.full((len(delays), self.steps + 1), none)  # [K, S]
        if given is not None:
            for row, codes, delay in zip(self._codes, given, self._delays, strict=True):
                row[1 + delay : 1 + delay + self._given] = codes

    @property
    def last(self) -> Tensor:
        """The newest step's codes, the next input: int64 [K]."""
        return self._codes[:, self.step]

    @property
    def is_done(self) -> bool:
        return self.step == self.steps

    @property
    def frames_ready(self) -> int:
        """Frames that have their codes of all codebooks."""
        return max(self._given, self.step - max(self._delays))

    def add(self, codes: Tensor) -> None:
        """codes: int64 [K] as sampled; those that are of no frame become none, and those of given frames stay."""
        self.step += 1
        column = self._codes[:, self.step]
        known = column.clone()
        column.copy_(codes)
        for codebook, delay in enumerate(self._delays):
            if not self._given <= self.step - 1 - delay < self._frames:
                column[codebook] = known[codebook]

    def inputs(self, first: int, end: int) -> Tensor:
        """The codes of the steps from `first` to before `end`, as the model reads them: int64 [K, end - first]."""
        return self._codes[:, first:end]

    def frames(self, first: int, end: int) -> Tensor:
        """The codes of the frames from `first` to before `end`, all ready: int64 [K, end - first]."""
        return torch.stack(
            [self._codes[k, 1 + delay + first : 1 + delay + end] for k, delay in enumerate(self._delays)]
        )
