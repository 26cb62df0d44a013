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

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Codes = npt.NDArray[np.int64]


class DelayedCodes:
    """The codes of one sequence while they are generated. Step 0 has only empty codes; `append` adds one more step.

    The codes are on the host, in numpy: writing a few of them takes a tenth of the time that it takes in torch.
    """

    def __init__(self, delays: Sequence[int], frames: int, empty_code: int, prompt: Codes | None = None) -> None:
        """`frames` is the total number of frames. prompt: [K, n], the codes of the first n frames.

        Steps whose codes all belong to the prompt count as appended.
        """
        self._delays = tuple(delays)
        self._max_delay = max(delays)
        self.frames = frames
        self.prompt_frames = 0 if prompt is None else prompt.shape[1]
        self.total_steps = frames + self._max_delay
        """The number of steps to append in all, which is also the number of inputs that the model reads."""
        self.step = self.prompt_frames
        """The number of steps appended so far."""
        self.frames_ready = self.prompt_frames
        """The number of frames that have a code in every codebook."""
        self.known_steps = self.step
        """The number of steps that the model reads before it generates the next: those of the prompt, and those
        restored."""
        self.columns = np.full((len(delays), self.total_steps + 1), empty_code, np.int64)
        """The codes of each step, [K, total_steps + 1]. Later steps have empty codes, or those of the prompt."""
        if prompt is not None:
            for row, codes, delay in zip(self.columns, prompt, self._delays, strict=True):
                row[1 + delay : 1 + delay + self.prompt_frames] = codes

    @property
    def newest(self) -> Codes:
        """The codes of the newest step, which are the model's next input: [K]."""
        return self.columns[:, self.step]

    @property
    def is_done(self) -> bool:
        return self.step == self.total_steps

    def restore(self, columns: Codes) -> None:
        """Takes the codes of the first steps, [K, n], at least those of the prompt, as generated before."""
        self.columns[:, 1 : 1 + columns.shape[1]] = columns
        self.step = self.known_steps = columns.shape[1]
        self.frames_ready = max(self.prompt_frames, self.step - self._max_delay)

    def append(self, codes: Codes) -> None:
        """Adds sampled codes, [K]. Those that belong to no frame become empty; those of the prompt are kept."""
        newest_frame = self.step
        self.step = step = newest_frame + 1
        if self.prompt_frames + self._max_delay <= newest_frame < self.frames:
            self.columns[:, step] = codes
        else:
            for codebook, delay in enumerate(self._delays):
                if self.prompt_frames <= newest_frame - delay < self.frames:
                    self.columns[codebook, step] = codes[codebook]
        self.frames_ready = max(self.prompt_frames, step - self._max_delay)

    def select_frames(self, first: int, end: int) -> Codes:
        """The codes of the frames from `first` to `end` (exclusive), all of them ready: [K, end - first]."""
        return np.stack([self.columns[k, 1 + delay + first : 1 + delay + end] for k, delay in enumerate(self._delays)])


def delay_sampled_codes(
    sampled: Tensor, known: Tensor, positions: Tensor, prompt_frames: Tensor, frames: Tensor, delays: Tensor
) -> Tensor:
    """What `DelayedCodes.append` does, on a device and for B sequences: returns the codes of their next steps, [B, K].

    sampled, known: int64 [B, K], what was sampled, and what the next steps hold already. positions: int64 [B], the
    steps that were read. prompt_frames, frames: int64 [B], as in `DelayedCodes`. delays: int64 [K].
    """
    frame = positions[:, None] - delays
    return torch.where((frame >= prompt_frames[:, None]) & (frame < frames[:, None]), sampled, known)
