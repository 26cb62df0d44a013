"""The main program of an engine process: runs one engine for the service at the other end of a socket.

    python -m generation_service.processes.engine_host SOCKET_FD PARENT_PID

The process ends when it is told to, when the socket is closed, when the service ends in any way, and when the device is
lost.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from structlog.contextvars import bind_contextvars

from dgx_music.errors import ServiceError, Unavailable
from generation_service.config import GenerationSettings
from generation_service.engine.engine import Engine
from generation_service.engine.request_handle import GenerationHandle
from generation_service.engine.suspension.sealed_checkpoint import GenerationSuspended
from generation_service.models.catalog import ModelCatalog
from generation_service.models.discovery import find_installed_models
from generation_service.processes import messages
from generation_service.processes.message_stream import MessageStream
from generation_service.processes.messages import ErrorData
from service_runtime.failpoints import failpoint
from service_runtime.file_modes import limit_umask
from service_runtime.observability.logging import configure_logging, get_logger
from service_runtime.supervision import UnrecoverableError, end_with_parent

log = get_logger(__name__)

REPORT_PERIOD_SECONDS = 0.5
DEVICE_LOST_STATUS, PARENT_ENDED_STATUS = 3, 4
"""Exit statuses."""

BuildCatalog = Callable[[GenerationSettings, float], ModelCatalog]
"""The settings, and the memory bandwidth as in `messages.Configure` → the models."""


class EngineHost:
    """Runs the engine, and answers the messages of the service."""

    def __init__(self, stream: MessageStream, build_catalog: BuildCatalog) -> None:
        self._stream = stream
        self._build_catalog = build_catalog
        self._handles: dict[int, GenerationHandle] = {}
        self._request_tasks: dict[int, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        """Runs the engine until the service stops it or the device is lost. Returns the exit status."""
        configuration: messages.Configure = await self._stream.receive()
        configure_logging(configuration.log_level, configuration.log_format, device=configuration.device)
        settings = GenerationSettings.model_validate_json(configuration.settings_json)
        catalog = self._build_catalog(settings, configuration.memory_gb_per_second)
        assert settings.max_batch_size is not None
        self._catalog = catalog
        self._engine = Engine(
            catalog,
            max_batch_size=settings.max_batch_size,
            max_waiting=settings.max_waiting,
            buffer_seconds=settings.buffer_seconds,
            stall_seconds=settings.stall_seconds,
            preload=configuration.preload,
        )
        await self._engine.start()
        report_task = asyncio.create_task(self._report_until_lost())
        receive_task = asyncio.create_task(self._receive_until_stopped())
        await asyncio.wait({report_task, receive_task}, return_when=asyncio.FIRST_COMPLETED)
        if receive_task.done():
            receive_task.result()
            status = 0
        else:
            report_task.result()
            status = DEVICE_LOST_STATUS
        await self._engine.stop()
        for handle in self._handles.values():
            handle.cancel(Unavailable("the server is shutting down", reason="SHUTTING_DOWN", retry_after_seconds=1.0))
        await asyncio.gather(*self._request_tasks.values(), return_exceptions=True)
        self._report()
        await self._stream.close()
        return status

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _report_until_lost(self) -> None:
        """Reports the state periodically. Returns when the engine can't recover."""
        while True:
            if self._report():
                return
            await asyncio.sleep(REPORT_PERIOD_SECONDS)

    def _report(self) -> bool:
        """Sends the state of the engine. Returns whether the device is lost."""
        problem: ServiceError | None = None
        try:
            self._engine.check()
        except Unavailable as error:
            problem = error
        self._stream.send(
            messages.Snapshot(
                status=self._engine.status(),
                problem=None if problem is None else ErrorData.of(problem),
                models=self._engine.loaded_models(),
                stages={number: handle.stage for number, handle in self._handles.items()},
                progress={
                    number: progress
                    for number, handle in self._handles.items()
                    if (progress := handle.sequence.model_progress) is not None
                },
            )
        )
        return isinstance(problem, UnrecoverableError)

    async def _receive_until_stopped(self) -> None:
        while True:
            match await self._stream.receive():
                case messages.Submit() as request:
                    self._request_tasks[request.request_id] = self._spawn(self._run_request(request))
                case messages.Consumed(number, frames):
                    if (handle := self._handles.get(number)) is not None:
                        self._engine.frames_consumed(handle.sequence, frames)
                case messages.Cancel(number):
                    if (handle := self._handles.get(number)) is not None:
                        handle.cancel()
                    elif number in self._request_tasks:
                        self._request_tasks[number].cancel()
                case messages.Suspend(number):
                    if (handle := self._handles.get(number)) is not None:
                        handle.suspend()
                case messages.Load(call_id, name):
                    self._spawn(self._answer(call_id, self._load(name)))
                case messages.Unload(call_id, name):
                    self._spawn(self._answer(call_id, self._engine.unload(name)))
                case messages.Report(call_id):
                    self._report()
                    self._stream.send(messages.Answer(call_id, None))
                case messages.Stop():
                    return

    async def _run_request(self, request: messages.Submit) -> None:
        number = request.request_id
        bind_contextvars(**request.log_fields)
        handle: GenerationHandle | None = None
        error: ErrorData | None = None
        checkpoint: bytes | None = None
        try:
            info = await self._catalog.describe(request.model)
            origin = request.origin
            handle = self._handles[number] = self._engine.submit(
                info,
                request.parameters,
                client=origin.client,
                weight=origin.weight,
                deadline=origin.deadline,
            )
            self._stream.send(messages.Accepted(number))
            await handle.wait_until_started()
            self._stream.send(
                messages.Started(
                    number, dict(handle.metadata), handle.sections, handle.sequence.timings, handle.is_resumed
                )
            )
            while (block := await handle.next_block()) is not None:
                failpoint("engine.before_block")
                self._stream.send(messages.Block(number, block))
        except GenerationSuspended as suspended:
            checkpoint = suspended.checkpoint
        except Exception as failure:
            if not isinstance(failure, ServiceError):
                log.error("unexpected_error", exc_info=failure)
            error = ErrorData.of(failure)
        finally:
            self._handles.pop(number, None)
            self._request_tasks.pop(number, None)
        timings = None if handle is None else handle.sequence.timings
        self._stream.send(messages.Finished(number, error, timings, checkpoint))

    async def _load(self, name: str) -> None:
        await self._engine.load(await self._catalog.describe(name))

    async def _answer(self, call_id: int, call: Coroutine[Any, Any, None]) -> None:
        error: ErrorData | None = None
        try:
            await call
        except Exception as failure:
            error = ErrorData.of(failure)
        self._report()
        self._stream.send(messages.Answer(call_id, error))


def run_host(build_catalog: BuildCatalog) -> None:
    """Runs the process with the models of this catalog."""
    end, parent = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
    limit_umask()
    # Ctrl-C, the end of the terminal, and a SIGTERM to all of a container are for the service: it drains first.
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    end_with_parent(parent, PARENT_ENDED_STATUS)
    sys.exit(asyncio.run(_serve(end, build_catalog)))


async def _serve(end: socket.socket, build_catalog: BuildCatalog) -> int:
    try:
        return await EngineHost(await MessageStream.open(end), build_catalog).run()
    except EOFError:
        os._exit(PARENT_ENDED_STATUS)  # Nobody waits for what is still running.


if __name__ == "__main__":
    run_host(find_installed_models)
