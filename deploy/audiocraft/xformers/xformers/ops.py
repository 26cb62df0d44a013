"""The part of `xformers.ops` that audiocraft 1.3.0's `modules/transformer.py` uses."""

from __future__ import annotations

from typing import NoReturn

from torch import unbind

__all__ = ["LowerTriangularMask", "memory_efficient_attention", "unbind"]


class LowerTriangularMask:
    """Marks attention as causal. With torch's attention, only its presence matters."""


def memory_efficient_attention(*args: object, **kwargs: object) -> NoReturn:
    """Called only after `set_efficient_attention_backend("xformers")`."""
    raise NotImplementedError("this is a substitute for xformers; for its attention, run `pip install xformers`")
