"""Philox4x32-10, a counter-based random number generator, on int64 tensors of any device.

A counter-based generator has no state: the number depends only on the key and the counter. Source: Salmon et al. 2011,
"Parallel Random Numbers: As Easy as 1, 2, 3"; checked against the known answers of their Random123 library.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDS = 10
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_INCREMENTS = (0x9E3779B9, 0xBB67AE85)
_WORD = 0xFFFFFFFF


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """The four words of a counter and a key. All are int64 tensors of values from 0 to 2^32-1 that broadcast."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        high0, low0 = _multiply(c0, _MULTIPLIERS[0])
        high1, low1 = _multiply(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _KEY_INCREMENTS[0]) & _WORD, (k1 + _KEY_INCREMENTS[1]) & _WORD
    return c0, c1, c2, c3


def gumbel_noise(seeds: Tensor, sample_counts: Tensor, codebooks: Tensor, codes: Tensor) -> Tensor:
    """Standard Gumbel noise for a code of a codebook, at the n-th sample of a request.

    All are int64 and broadcast to the result's shape, which is fp32. `seeds` are 0 … 2^63-1, the others 0 … 2^32-1.
    The key is the seed, low word first; the counter is (code, codebook, sample count, 0); of the four words the first
    is used. Words are the same everywhere, the noise up to the last bit of a device's logarithm.
    """
    zero = torch.zeros((), dtype=torch.int64, device=seeds.device)
    words = philox((codes, codebooks, sample_counts, zero), (seeds & _WORD, seeds >> 32 & _WORD))[0]
    return -torch.log(-torch.log(_uniform(words)))


def _uniform(words: Tensor) -> Tensor:
    """fp32, more than 0 and less than 1."""
    # 23 random bits plus one half fit into the 24 bits of a float's significand.
    return ((words >> 9).float() + 0.5) * 2.0**-23


def _multiply(x: Tensor, multiplier: int) -> tuple[Tensor, Tensor]:
    """The high and the low word of a product of two words. int64 wraps around, which keeps all 64 bits."""
    product = x * multiplier
    return product >> 32 & _WORD, product & _WORD
