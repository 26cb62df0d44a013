"""Memory in pages of 2 MiB, for weights: a step walks through all of them, and finding 4 KiB at a time takes a tenth.

Source: Linux, madvise(2) and "Transparent Hugepage Support". Systems let a program ask for huge pages, and seldom give
them unasked.
"""

from __future__ import annotations

import ctypes
import sys

HUGE_PAGE_BYTES = 1 << 21
"""On x86-64, and on arm64 with pages of 4 KiB. Where they are larger, nothing is small enough to be asked for."""
_MADV_COLLAPSE = 25
"""Linux 6.1: now, whatever the pages are. Python has no name for it."""


def collapse(address: int, size: int) -> None:
    """Have so many bytes of memory in huge pages, and what shares the first and the last of them; where that is known.

    They stay as they are, and where. Whatever can't be had stays in small pages.
    """
    if sys.platform != "linux":
        return
    first = address // HUGE_PAGE_BYTES * HUGE_PAGE_BYTES
    end = -(-(address + size) // HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES
    ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(end - first), _MADV_COLLAPSE)
