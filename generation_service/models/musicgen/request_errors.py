"""The errors of single requests."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import replace

from dgx_music.errors import ServiceError
from generation_service.models.base import TooLarge
from generation_service.models.musicgen.code_generator import KvMemory, Reservation


def too_large_error(memory: KvMemory, reservation: Reservation, new_frames: int, frame_rate_hz: float) -> TooLarge:
    """For a request whose KV cache would not even fit into an idle model. new_frames: those of codes that it would
    generate in its longest window."""

    def size_at(positions: int) -> int:
        return memory.size_bytes(replace(reservation, positions=positions))

    size, limit = memory.size_bytes(reservation), memory.limit_bytes
    fitting = bisect_right(range(reservation.positions), limit, key=size_at) - 1
    seconds = (new_frames - (reservation.positions - fitting)) / frame_rate_hz
    return TooLarge(
        "duration_seconds",
        f"the KV cache would need {size / 2**20:.1f} MiB, but all requests together have {limit / 2**20:.1f} MiB; "
        + (f"request at most {math.floor(seconds * 10) / 10:g} s, or " if seconds >= 0.1 else "")
        + "start the server with more free memory",
    )


def not_finite_error(model: str, code_frames: int, seed: int) -> ServiceError:
    """For a request whose logits are not finite after this many frames of codes."""
    return ServiceError(
        f"model {model!r} computed logits that are not finite after {code_frames} frames of codes, for the seed "
        f"{seed}; retry, or set DGX_MUSIC_PRECISION to fp32",
        reason="MODEL_OUTPUT",
    )


def failure_of(model: str, what_failed: str, cause: Exception) -> ServiceError:
    """For a request with which a part of the model failed."""
    problem = " ".join(f"{type(cause).__name__}: {cause}".split())
    error = ServiceError(f"model {model!r} {what_failed}: {problem}", reason="MODEL_FAILED")
    error.__cause__ = cause
    return error
