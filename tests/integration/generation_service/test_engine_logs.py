"""The log lines of an engine process name the generation and the trace that they are about."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from structlog.contextvars import bound_contextvars

from generation_service.config import GenerationSettings
from generation_service.hardware.devices import Device
from generation_service.models.base import TooLarge
from generation_service.processes.engine_client import RequestOrigin
from generation_service.processes.engine_process import EngineProcess
from service_runtime.observability.logging import configure_logging
from tests.support.tone_engine_process import MODULE, build_catalog
from tests.support.tone_model import tone_parameters

WAIT_SECONDS = 60.0


@contextmanager
def standard_error_to(file: int) -> Iterator[None]:
    """Processes that are started within the block write to this file."""
    saved = os.dup(2)
    os.dup2(file, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


async def test_failed_request_is_logged_with_its_generation_and_trace() -> None:
    info = build_catalog().get("tone").describe()
    serving = asyncio.Event()
    engine = EngineProcess(Device("cpu", "", "CPU"), GenerationSettings(devices="cpu"), max_batch_size=1, module=MODULE)
    engine.on_capacity_changed = serving.set
    configure_logging("info", "json")  # A process of an engine logs as its parent does.
    read_end, write_end = os.pipe()
    with standard_error_to(write_end):
        await engine.start()
        async with asyncio.timeout(WAIT_SECONDS):
            await serving.wait()
    os.close(write_end)
    try:
        with bound_contextvars(generation_id="g1", trace_id="t1"):
            handle = await engine.submit(info, tone_parameters("large"), RequestOrigin(generation_id="g1"))
        with pytest.raises(TooLarge):
            await handle.wait_until_started()
    finally:
        await engine.stop()
    with open(read_end) as log:  # noqa: ASYNC230  # The process has ended.
        events: list[dict[str, Any]] = [json.loads(line) for line in log if line.startswith("{")]
    [failed] = [event for event in events if event["event"] == "generation_failed"]
    assert (failed["generation_id"], failed["trace_id"], failed["device"]) == ("g1", "t1", "cpu")
