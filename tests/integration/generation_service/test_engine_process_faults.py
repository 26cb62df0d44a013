"""What becomes of an engine process, and of what is asked of it, when something fails at a bad moment."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import pytest
import structlog

from dgx_music.errors import Unavailable
from generation_service.config import GenerationSettings
from generation_service.hardware.devices import Device
from generation_service.models.base import GenerationParameters
from generation_service.processes import engine_link, engine_process
from generation_service.processes.engine_client import EngineState, RequestOrigin
from generation_service.processes.engine_process import EngineProcess
from generation_service.processes.message_stream import MessageStream
from tests.support import garbage_engine_process, tone_engine_process
from tests.support.tone_model import ToneModel

WAIT_SECONDS = 30.0
PARAMETERS = GenerationParameters("a", 800, 1)

StartEngine = Callable[[str], EngineProcess]


@pytest.fixture
async def start(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StartEngine]:
    monkeypatch.setattr(engine_process, "INITIAL_DELAY_SECONDS", 0.05)
    engines: list[EngineProcess] = []

    async def start(module: str) -> EngineProcess:
        engine = EngineProcess(Device("cpu"), GenerationSettings(), max_batch_size=2, module=module)
        engines.append(engine)
        await engine.start()
        return engine

    yield start  # type: ignore[misc]
    for engine in engines:
        await engine.stop()


async def wait_until(engine: EngineProcess, is_reached: Callable[[], bool]) -> None:
    changed = asyncio.Event()
    engine.on_capacity_changed = changed.set
    async with asyncio.timeout(WAIT_SECONDS):
        while not is_reached():
            changed.clear()
            await changed.wait()


async def wait_for_restarts(engine: EngineProcess, restarts: int) -> None:
    """Waits for this many processes to be started and to fail."""
    async with asyncio.timeout(WAIT_SECONDS):
        while engine.report().restarts < restarts:
            # Nothing tells of the end of a process that has never served, but a request that fails with it.
            with suppress(Unavailable):
                await engine.submit(ToneModel().info, PARAMETERS, RequestOrigin())
            await asyncio.sleep(0)


async def test_process_that_ends_at_once_is_replaced_after_longer_and_longer_delays(start):
    with structlog.testing.capture_logs() as logs:
        engine = await start("tests.support.no_such_module")
        await wait_for_restarts(engine, 3)
    failures = [log for log in logs if log["event"] == "engine_process_failed"]
    assert [log["delay_seconds"] for log in failures[:3]] == [0.05, 0.1, 0.2]
    assert engine.report().problem == "its process failed: it ended with exit status 1"


@pytest.mark.parametrize(
    ("garbage", "problem"),
    [
        ("version", "AttributeError: Can't get attribute 'OfTheFuture'"),
        ("kind", "TypeError: unknown message int"),
        ("length", "ValueError: a message of 1152921504606846976 bytes was announced"),
    ],
)
async def test_process_whose_messages_cannot_be_used_is_replaced(start, monkeypatch, garbage, problem):
    monkeypatch.setenv("GARBAGE", garbage)
    engine = await start(garbage_engine_process.MODULE)
    await wait_for_restarts(engine, 2)
    assert f"it sent a message that can't be used: {problem}" in engine.report().problem
    assert "restart the service" in engine.report().problem


async def test_request_that_is_submitted_while_the_end_is_noticed_fails(start, monkeypatch):
    engine = await start(tone_engine_process.MODULE)
    await wait_until(engine, lambda: engine.capacity > 0)
    submitted = []
    close = MessageStream.close

    async def submit_and_close(stream: MessageStream) -> None:
        submitted.append(asyncio.create_task(engine.submit(ToneModel().info, PARAMETERS, RequestOrigin())))
        await asyncio.sleep(0)
        await close(stream)

    monkeypatch.setattr(MessageStream, "close", submit_and_close)
    os.kill(engine.report().pid, signal.SIGKILL)
    await wait_until(engine, lambda: engine.report().state is EngineState.FAILED)
    async with asyncio.timeout(WAIT_SECONDS):
        with pytest.raises(Unavailable, match="it was killed by SIGKILL; retry"):
            await submitted[0]
    monkeypatch.undo()


async def test_process_that_does_not_stop_is_killed(start, monkeypatch):
    monkeypatch.setattr(engine_link, "STOP_TIMEOUT_SECONDS", 0.1)
    engine = await start(tone_engine_process.MODULE)
    await wait_until(engine, lambda: engine.capacity > 0)
    pid = engine.report().pid
    os.kill(pid, signal.SIGSTOP)
    async with asyncio.timeout(WAIT_SECONDS):
        await engine.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_engine_is_stopped_while_it_waits_to_replace_its_process(start, monkeypatch):
    monkeypatch.setattr(engine_process, "INITIAL_DELAY_SECONDS", 60.0)
    engine = await start("tests.support.no_such_module")
    async with asyncio.timeout(WAIT_SECONDS):
        while engine.report().state is not EngineState.FAILED:
            with suppress(Unavailable):
                await engine.submit(ToneModel().info, PARAMETERS, RequestOrigin())
            await asyncio.sleep(0)
        await engine.stop()
    assert engine.report().pid is None


@pytest.mark.parametrize("turns", range(1, 5))
async def test_engine_is_stopped_while_its_process_is_started(start, turns):
    engine = await start(tone_engine_process.MODULE)
    for _ in range(turns):  # Let it begin, so far.
        await asyncio.sleep(0)
    async with asyncio.timeout(WAIT_SECONDS):
        await engine.stop()
    assert engine.report().pid is None
    gc.collect()  # A socket that was left open would be reported.
