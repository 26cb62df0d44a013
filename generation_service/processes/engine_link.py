"""One engine process, as the service sees it: the requests and calls that it has in hand, until it ends."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from structlog.contextvars import get_contextvars

import generation_service
from dgx_music.errors import ServiceError, Unavailable
from generation_service.engine.failures import format_error
from generation_service.engine.request_handle import GenerationHandle
from generation_service.engine.sequence import Sequence, Stage
from generation_service.engine.suspension.sealed_checkpoint import GenerationSuspended
from generation_service.models.base import GenerationParameters, ModelInfo
from generation_service.processes import messages
from generation_service.processes.engine_client import ENGINE_LOST, RequestOrigin
from generation_service.processes.message_stream import MessageStream
from service_runtime.observability.logging import get_logger

log = get_logger(__name__)

HOST_MODULE = "generation_service.processes.engine_host"
SILENCE_SECONDS = 60.0
"""A process that sends nothing for this long, of the state that it should send twice a second, is killed."""
STOP_TIMEOUT_SECONDS = 15.0
"""How long a process may take to end after it was told to. `Engine.stop` waits 10 s for the current model call."""
EXIT_TIMEOUT_SECONDS = 5.0
"""How long a process may take to end after it has closed the connection."""
LOST_RETRY_SECONDS = 1.0
"""The retry time for requests that a process took with it: another engine may be free, or this one is replaced."""
_PACKAGE_PARENT = str(Path(generation_service.__file__).parents[1])

OnSnapshot = Callable[[messages.Snapshot], None]


class EngineLink:
    """A running engine process. Implements `EngineControl` for the handles of its requests."""

    def __init__(self, process: asyncio.subprocess.Process, stream: MessageStream, on_snapshot: OnSnapshot) -> None:
        self._process = process
        self._stream = stream
        self._on_snapshot = on_snapshot
        self._numbers = itertools.count(1)
        self._handles: dict[int, GenerationHandle] = {}
        self._request_ids: dict[Sequence, int] = {}
        self._answers: dict[int, asyncio.Future[None]] = {}
        """The calls, and the requests that are not accepted yet, by their number."""
        self._is_stopping = False
        self._stop_timer: asyncio.TimerHandle | None = None
        self._kill_reason = ""
        self._lost_reason = ""

    @classmethod
    async def start(
        cls,
        configuration: messages.Configure,
        environment: Mapping[str, str],
        on_snapshot: OnSnapshot,
        module: str = HOST_MODULE,
    ) -> EngineLink:
        """Starts a process. `environment` is added to that of this process. Raises OSError if it can't be started."""
        ours, theirs = socket.socketpair()
        with theirs:
            stream = await MessageStream.open(ours)
            try:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", "-m", module, str(theirs.fileno()), str(os.getpid())),
                    env=_environment(environment),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=sys.__stderr__.fileno() if sys.__stderr__ else None,  # Standard output may carry audio.
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,  # Ctrl-C in the terminal is for this process.
                )
            except BaseException:
                await stream.close()
                raise
        stream.send(configuration)
        return cls(process, stream, on_snapshot)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def run(self) -> str:
        """Receives until the process has ended, and fails what it had in hand. Returns why it ended.

        Kills the process if it hangs, sends what can't be used, or if this is cancelled.
        """
        try:
            while True:
                async with asyncio.timeout(SILENCE_SECONDS):
                    message = await self._stream.receive()
                self._handle(message)
        except EOFError:
            pass
        except TimeoutError:
            self.kill(f"it hung: no sign of life for {SILENCE_SECONDS:g} s")
        except Exception as error:  # For example, a version with other messages has been installed meanwhile.
            log.error("engine_message_invalid", pid=self.pid, exc_info=error)
            self.kill(f"it sent a message that can't be used: {format_error(error)}; restart the service")
        except BaseException:
            self.kill("")
            raise
        finally:
            reason = await self._wait_for_exit()
            await self._stream.close()
            self._fail_all(reason)  # Nothing is awaited from here on, so that nothing more can be submitted.
        return reason

    def stop(self) -> None:
        """Tells the process to end. `run` returns when it has; it is killed if that takes too long."""
        self._is_stopping = True
        self._stream.send(messages.Stop())
        self._stop_timer = asyncio.get_running_loop().call_later(
            STOP_TIMEOUT_SECONDS, self.kill, "it did not end by itself"
        )

    def kill(self, reason: str) -> None:
        """Ends the process at once. `reason` is what `run` returns."""
        self._kill_reason = self._kill_reason or reason
        with suppress(ProcessLookupError):
            self._process.kill()

    async def submit(
        self,
        info: ModelInfo,
        parameters: GenerationParameters,
        origin: RequestOrigin,
        *,
        buffer_seconds: float,
        stall_seconds: float,
    ) -> GenerationHandle:
        """Queues a request. Returns once the engine has accepted it, or raises why it has not."""
        number = next(self._numbers)
        handle = GenerationHandle(info, parameters, self, buffer_seconds=buffer_seconds, stall_seconds=stall_seconds)
        self._handles[number], self._request_ids[handle.sequence] = handle, number
        try:
            await self._ask(number, messages.Submit(number, info.name, parameters, origin, get_contextvars()))
        except BaseException:
            handle.cancel()
            raise
        return handle

    async def load(self, name: str) -> None:
        number = next(self._numbers)
        await self._ask(number, messages.Load(number, name))

    async def unload(self, name: str) -> None:
        number = next(self._numbers)
        await self._ask(number, messages.Unload(number, name))

    async def report(self) -> None:
        """Returns after a snapshot of now has been received."""
        number = next(self._numbers)
        await self._ask(number, messages.Report(number))

    async def _ask(self, number: int, message: object) -> None:
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        self._stream.send(message)
        try:
            await answer
        finally:
            del self._answers[number]

    def _answer(self, number: int, error: ServiceError | None) -> None:
        answer = self._answers.get(number)
        if answer is None or answer.done():
            return
        if error is None:
            answer.set_result(None)
        else:
            answer.set_exception(error)

    def frames_consumed(self, sequence: Sequence, frames: int) -> None:
        """Tells the engine that a handle's reader has consumed frames, which may resume a paused sequence."""
        if (number := self._request_ids.get(sequence)) is not None:
            self._stream.send(messages.Consumed(number, frames))

    def cancel(self, sequence: Sequence) -> None:
        """Cancels a handle's request."""
        sequence.is_cancelled = True
        if (number := self._request_ids.pop(sequence, None)) is not None:
            self._handles.pop(number, None)
            self._stream.send(messages.Cancel(number))

    def suspend(self, sequence: Sequence) -> None:
        """Has a handle's request end with `GenerationSuspended`."""
        if (number := self._request_ids.get(sequence)) is not None:
            self._stream.send(messages.Suspend(number))

    def _handle(self, message: Any) -> None:
        match message:
            case messages.Snapshot() as snapshot:
                for number, stage in snapshot.stages.items():
                    if number in self._handles:
                        self._handles[number].sequence.stage = stage
                        self._handles[number].sequence.model_progress = snapshot.progress.get(number)
                match snapshot.problem:
                    case messages.ErrorData(reason="ENGINE_HANGS") as problem:
                        self.kill(f"it hung: {problem.message}")
                    case messages.ErrorData(reason="ENGINE_STOPPED") as problem:
                        self._lost_reason = problem.message  # The process is about to end.
                self._on_snapshot(snapshot)
            case messages.Answer(number, error):
                self._answer(number, _to_error(error))
            case messages.Accepted(number):
                self._answer(number, None)
            case messages.Started(number, metadata, sections, timings, is_resumed):
                if (handle := self._handles.get(number)) is not None:
                    handle.sequence.stage = Stage.GENERATING
                    handle.sequence.timings = timings
                    handle.sequence.is_resumed = is_resumed
                    handle.on_started(metadata, sections)
            case messages.Block(number, samples):
                if (handle := self._handles.get(number)) is not None:
                    handle.sequence.frames_delivered += len(samples)
                    handle.on_block(samples)
            case messages.Finished(number, error, timings, checkpoint):
                failure = _to_error(error) if checkpoint is None else GenerationSuspended(checkpoint)
                if failure is not None and failure.reason == "ENGINE_STOPPED":
                    failure = self._lost_error(failure.message)
                self._answer(number, failure)
                if (handle := self._handles.pop(number, None)) is not None:
                    self._request_ids.pop(handle.sequence, None)
                    handle.sequence.timings = timings or handle.sequence.timings
                    handle.on_finished(failure)
            case _:
                raise TypeError(f"unknown message {type(message).__name__}")

    async def _wait_for_exit(self) -> str:
        try:
            async with asyncio.timeout(EXIT_TIMEOUT_SECONDS):
                status = await self._process.wait()
        except TimeoutError:
            self.kill("it did not end by itself")
            status = await self._process.wait()
        if self._stop_timer is not None:
            self._stop_timer.cancel()
        if reason := self._kill_reason or self._lost_reason:
            return reason
        if status < 0:
            return f"it was killed by {signal.Signals(-status).name}"
        return f"it ended with exit status {status}"

    def _fail_all(self, reason: str) -> None:
        for handle in tuple(self._handles.values()):
            handle.on_finished(self._lost_error(reason))
        self._handles.clear()
        self._request_ids.clear()
        for number in tuple(self._answers):
            self._answer(number, self._lost_error(reason))

    def _lost_error(self, reason: str) -> ServiceError:
        if self._is_stopping:
            return Unavailable("the server is shutting down", reason="SHUTTING_DOWN", retry_after_seconds=1.0)
        return Unavailable(
            f"the engine process failed: {reason}; retry",
            reason=ENGINE_LOST,
            retry_after_seconds=LOST_RETRY_SECONDS,
        )


def _to_error(error: messages.ErrorData | None) -> ServiceError | None:
    return None if error is None else error.to_error()


def _environment(added: Mapping[str, str]) -> dict[str, str]:
    # The working folder is not on the path (-P), since any file in it could hide a module; this package is.
    path = os.pathsep.join(filter(None, (_PACKAGE_PARENT, os.environ.get("PYTHONPATH", ""))))
    return {**os.environ, "PYTHONPATH": path, **added}
