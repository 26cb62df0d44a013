"""Huge pages of 2 MiB for weights. A step reads all weights; with 4 KiB pages, a tenth of it is address translation.

Source: Linux, madvise(2) and "Transparent Hugepage Support". Most systems give huge pages only to programs that ask.
"""

from __future__ import annotations

import ctypes
import sys

HUGE_PAGE_BYTES = 1 << 21
"""Their size on x86-64, and on arm64 with pages of 4 KiB."""
_MADV_COLLAPSE = 25
"""Collapses pages synchronously, since Linux 6.1. Python's mmap module does not define it."""


def collapse_to_huge_pages(address: int, size: int) -> None:
    """Asks the kernel to back `size` bytes from `address`, rounded out to whole huge pages, with huge pages.

    Content and addresses do not change. Errors are ignored: memory that can't be collapsed stays in small pages.
    """
    if sys.platform != "linux":
        return
    first = address // HUGE_PAGE_BYTES * HUGE_PAGE_BYTES
    end = -(-(address + size) // HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES
    ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(end - first), _MADV_COLLAPSE)
