"""How the tools report progress."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

from dgx_music.client.async_generation import AsyncGeneration
from dgx_music.storage.v1 import storage_pb2 as storage
from gateway.mcp.tools import _report


class Reports:
    """Stands for the context of a call, which would send them."""

    def __init__(self) -> None:
        self.sent: list[tuple[float, float | None, str | None]] = []

    async def report_progress(self, progress: float, total: float | None, message: str | None) -> None:
        self.sent.append((progress, total, message))


async def test_progress_increases_each_time() -> None:
    async def changes() -> AsyncIterator[AsyncGeneration]:
        for stage, progress in (
            ("QUEUED", 0),
            ("GENERATING", 0),
            ("GENERATING", 0.5),
            ("EXPORTING", 1),
            ("EXPORTING", 1),
        ):
            message = storage.Generation(
                state=storage.GENERATION_STATE_PROCESSING,
                stage=storage.GenerationStage.Value(f"GENERATION_STAGE_{stage}"),
                progress=progress,
            )
            yield AsyncGeneration(cast(Any, None), message)

    reports = Reports()
    await _report(cast(Any, reports), changes())
    assert reports.sent == [(0, 1, "queued"), (0.5, 1, "generating"), (1, 1, "exporting")]
