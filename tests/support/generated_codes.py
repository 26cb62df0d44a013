"""Runs a code generator directly, without the codec: requests that join and leave a batch, and the codes of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from generation_service.models.base import GenerationParameters
from generation_service.models.musicgen.code_generator import CodeGenerator, Reservation
from generation_service.models.musicgen.conditions import WindowConditions
from generation_service.models.musicgen.delay_pattern import Codes, DelayedCodes

MAX_ROUNDS = 100_000


@dataclass(frozen=True, slots=True)
class CodeRequest:
    """A request of `frames` frames of codes within one window."""

    parameters: GenerationParameters
    conditions: WindowConditions
    frames: int
    joins_at: int = 0
    """The round in which it joins the batch."""
    leaves_at: int | None = None
    """The round in which it is closed before its end, as by a cancellation."""
    known: Codes | None = None
    """[K, n], the codes of the first frames."""


def generate_codes(generator: CodeGenerator[Any], requests: Sequence[CodeRequest]) -> list[Codes]:
    """The codes of each request, [K, frames]; of one that leaves, those that were ready until then."""
    rows: dict[int, Any] = {}
    remaining = set(range(len(requests)))
    for now in range(MAX_ROUNDS):
        for index, request in enumerate(requests):
            if request.joins_at == now:
                config = generator.config
                window = DelayedCodes(config.delays, request.frames, config.card, request.known)
                reservation = Reservation.for_windows(window.total_steps, [request.conditions])
                rows[index] = generator.open(request.parameters, reservation)
                generator.begin_window(rows[index], window, request.conditions)
            elif request.leaves_at == now and index in remaining:
                generator.close(rows[index])
                remaining.remove(index)
        open_rows = [row for index, row in rows.items() if index in remaining]
        behind = next((row for row in open_rows if row.needs_prefill), None)
        if behind is not None:
            generator.prefill(behind)
        launched = [row for row in open_rows if row.can_step]
        if launched:
            generator.launch(launched)
        for result in generator.collect(wait=not launched and behind is None):
            for row, codes, is_finite in zip(result.rows, result.codes, result.is_finite, strict=True):
                assert is_finite or not row.is_open, "the logits are not finite"
                if row.is_open:
                    row.window.append(codes)
        for index in [index for index in remaining if index in rows and rows[index].window.is_done]:
            generator.close(rows[index])
            remaining.remove(index)
        if not remaining:
            break
    windows = [rows[index].window for index in range(len(requests))]
    return [window.select_frames(0, window.frames_ready) for window in windows]
