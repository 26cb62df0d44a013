"""The logits of requests whose guidance has several branches, in plain PyTorch.

It defines what the kernel in `branch_combination_kernel` computes. Nothing here reads a tensor on the host.
"""

from __future__ import annotations

import torch
from torch import Tensor

from generation_service.models.musicgen.kernels.step_ends import FRAMES, POSITION, PROMPT_FRAMES


def combine_branches(logits: Tensor, sources: Tensor, weights: Tensor, integers: Tensor) -> Tensor:
    """Replaces the conditional logits of each slot of a step by the weighted sum of all branches of its request.

    logits: fp32 [B, 2, K, card]. sources: int64 [S, 1 + N]; of its first B rows, each has the slot whose weights apply,
    and of each branch the row among all 2 B, or the first one's again if there are fewer than N. weights: fp32
    [S + 1, 2, N], the first and the last weights of each slot's branches, 0 for those that there are not. integers:
    int64 [6, B], those of `StepInputs`. → [B, 2, K, card].
    The weights are those of `CodeRow.weights`. With a single branch of weight 1, logits stay as they are.
    """
    sources, rows = sources[: len(logits)], logits.flatten(0, 1)
    first_frame = integers[PROMPT_FRAMES]
    progress = (integers[POSITION] - first_frame) / (integers[FRAMES] - first_frame)  # [B]
    first, last = weights[sources[:, 0]].unbind(1)  # [B, N]
    current = first + (last - first) * progress.clamp_max(1)[:, None]
    conditional = (rows[sources[:, 1:]] * current[..., None, None]).sum(1)
    return torch.stack([conditional, rows[sources[:, 1] + 1]], 1)
