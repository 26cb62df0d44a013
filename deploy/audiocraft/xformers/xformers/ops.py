"""`xformers.ops` as far as audiocraft 1.3.0's `modules/transformer.py` goes."""

from __future__ import annotations

from typing import NoReturn

from torch import unbind

__all__ = ["LowerTriangularMask", "memory_efficient_attention", "unbind"]


class LowerTriangularMask:
    """With torch's attention only its presence counts: "causal"."""


def memory_efficient_attention(*args: object, **kwargs: object) -> NoReturn:
    """Called after `set_efficient_attention_backend("xformers")` only."""
    raise NotImplementedError("a stand-in is installed; for xformers' attention: pip install xformers")
