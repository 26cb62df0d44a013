"""The lifecycle of the generation service without a server."""

from __future__ import annotations

import pytest

from dgx_music.errors import Unavailable
from generation_service.config import GenerationSettings
from generation_service.rpc.server import build


async def test_service_that_never_started_can_be_stopped(tmp_path):
    service = build(GenerationSettings(data_dir=tmp_path))
    await service.drain()
    await service.stop()
    with pytest.raises(Unavailable, match="not running"):
        await service.check()
