"""The pages that hold the keys and values of all requests, and the account of which are free.

A request reserves as many pages as it can need, so that it never waits for memory once it runs, and a short request
takes little. `kernels.paged_attention` defines the pages' layout. The keys and values of prompts are in the same pages.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from dgx_music.errors import ResourceExhausted
from generation_service.models.musicgen.checkpoints.config import LmConfig
from generation_service.models.musicgen.code_generator import Reservation
from generation_service.models.musicgen.kernels.paged_attention import PAGE_POSITIONS, LayerPages
from generation_service.models.musicgen.lm.kv_cache import RETRY_SECONDS

PageNumbers = npt.NDArray[np.int32]
NEGATIVE_ROW = 1
"""The row of the negative condition among those of a request."""


def page_bytes(config: LmConfig, dtype: torch.dtype) -> int:
    """The size of a page: keys and values of PAGE_POSITIONS positions in all layers."""
    return config.num_layers * 2 * config.dim * PAGE_POSITIONS * dtype.itemsize


def count_pages(reservation: Reservation) -> int:
    """The pages of a request: those of each branch and of its negative condition, and those of their texts."""
    of_row, of_text = (-(-count // PAGE_POSITIONS) for count in (reservation.positions, reservation.tokens))
    return reservation.rows * of_row + reservation.texts * of_text


@dataclass(frozen=True, slots=True, eq=False)
class RequestPages:
    """The pages of one request, whose R rows are: its first branch, the negative condition, the other branches."""

    rows: PageNumbers
    """[R, pages of a row]."""
    texts: PageNumbers
    """[R, pages of a text]. Page 0 where the negative condition has no text."""


class PagePool:
    """A fixed number of pages, allocated once. Implements `code_generator.KvMemory`."""

    def __init__(self, config: LmConfig, pages: int, dtype: torch.dtype, device: torch.device) -> None:
        """`pages` is the number of pages that requests can use; there is one more, which belongs to no request."""
        self.device = device
        shape = (config.num_layers, pages + 1, config.num_heads, PAGE_POSITIONS, config.head_dim)
        keys, values = (torch.zeros(shape, dtype=dtype, device=device) for _ in range(2))
        self.layers = [LayerPages(*layer) for layer in zip(keys.unbind(0), values.unbind(0), strict=True)]
        self._page_bytes = page_bytes(config, dtype)
        self._pages = pages
        self._free = list(range(pages, 0, -1))

    @property
    def limit_bytes(self) -> int:
        """The size of all pages that requests can use."""
        return self._pages * self._page_bytes

    @property
    def reserved_bytes(self) -> int:
        """The size of the pages in use."""
        return (self._pages - len(self._free)) * self._page_bytes

    def size_bytes(self, reservation: Reservation) -> int:
        """The size of the pages that a request reserves."""
        return count_pages(reservation) * self._page_bytes

    def reserve(self, reservation: Reservation) -> RequestPages:
        """Raises ResourceExhausted if there are too few free pages."""
        count = count_pages(reservation)
        if count > len(self._free):
            raise ResourceExhausted(
                f"the request needs a KV cache of {count * self._page_bytes >> 20} MiB, but "
                f"{self.reserved_bytes >> 20} of {self.limit_bytes >> 20} MiB are in use; request a shorter "
                "duration, or retry when another generation has finished",
                reason="KV_MEMORY",
                retry_after_seconds=RETRY_SECONDS,
            )
        taken = np.array([self._free.pop() for _ in range(count)], np.int32)
        of_rows = reservation.rows * -(-reservation.positions // PAGE_POSITIONS)
        texts = taken[of_rows:].reshape(reservation.texts, -1)
        if not reservation.has_negative:
            texts = np.insert(texts, NEGATIVE_ROW, 0, axis=0)
        return RequestPages(taken[:of_rows].reshape(reservation.rows, -1), texts)

    def release(self, pages: RequestPages) -> None:
        """Returns the pages to the pool. A step that is still running may read and write them: whoever gets them next
        writes to them after it, in the order of the device's stream."""
        self._free += pages.rows.ravel().tolist() + pages.texts[pages.texts > 0].tolist()
