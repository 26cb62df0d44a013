"""The delay pattern: codebook k is delayed by `delays[k]` frames, so one decode step yields codes of several frames.

Source: audiocraft 1.3.0, `modules/codebooks_patterns.py`, DelayedPatternProvider (Copet et al. 2023, "Simple and
Controllable Music Generation", section 2.2). For K = 4 and the delays 0, 1, 2, 3, with E for the empty code:

    step   0  1  2  3  4 …
    k = 0  E  0  1  2  3 …      the frame that the code of each step belongs to
    k = 1  E  E  0  1  2 …
    k = 2  E  E  E  0  1 …
    k = 3  E  E  E  E  0 …
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class DelayedCodes:
    """The codes of one sequence while they are generated. Step 0 has only empty codes; `append` adds one more step."""

    def __init__(self, delays: Sequence[int], frames: int, empty_code: int, prompt: Tensor | None = None) -> None:
        """`frames` is the total number of frames. prompt: int64 [K, n], the codes of the first n frames.

        Steps whose codes all belong to the prompt count as appended.
        """
        self._delays = tuple(delays)
        self._frames = frames
        self._prompt_frames = 0 if prompt is None else prompt.shape[1]
        self.total_steps = frames + max(delays)
        """The number of steps to append in all, which is also the number of inputs that the model reads."""
        self.step = self._prompt_frames
        """The number of steps appended so far."""
        self._codes = torch.full((len(delays), self.total_steps + 1), empty_code)  # [K, steps + 1]
        if prompt is not None:
            for row, codes, delay in zip(self._codes, prompt, self._delays, strict=True):
                row[1 + delay : 1 + delay + self._prompt_frames] = codes

    @property
    def newest(self) -> Tensor:
        """The codes of the newest step, which are the model's next input: int64 [K]."""
        return self._codes[:, self.step]

    @property
    def is_done(self) -> bool:
        return self.step == self.total_steps

    @property
    def frames_ready(self) -> int:
        """The number of frames that have a code in every codebook."""
        return max(self._prompt_frames, self.step - max(self._delays))

    def append(self, codes: Tensor) -> None:
        """Adds sampled codes, int64 [K]. Those that belong to no frame become empty; those of the prompt are kept."""
        self.step += 1
        column = self._codes[:, self.step]
        known = column.clone()
        column.copy_(codes)
        for codebook, delay in enumerate(self._delays):
            if not self._prompt_frames <= self.step - 1 - delay < self._frames:
                column[codebook] = known[codebook]

    def inputs(self, first: int, end: int) -> Tensor:
        """The model's inputs at the steps from `first` to `end` (exclusive): int64 [K, end - first]."""
        return self._codes[:, first:end]

    def frames(self, first: int, end: int) -> Tensor:
        """The codes of the frames from `first` to `end` (exclusive), all of them ready: int64 [K, end - first]."""
        return torch.stack(
            [self._codes[k, 1 + delay + first : 1 + delay + end] for k, delay in enumerate(self._delays)]
        )
