"""An engine in a process of its own, which is replaced whenever it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace

from dgx_music.errors import ServiceError, Unavailable
from generation_service.config import GenerationSettings
from generation_service.engine.engine_status import EngineStatus
from generation_service.engine.request_handle import GenerationHandle
from generation_service.hardware.devices import VISIBLE_DEVICES, Device
from generation_service.models.base import GenerationParameters, ModelInfo
from generation_service.models.execution import ModelExecution
from generation_service.processes import messages
from generation_service.processes.engine_client import ENGINE_UNAVAILABLE, EngineReport, EngineState, RequestOrigin
from generation_service.processes.engine_link import HOST_MODULE, EngineLink
from service_runtime.observability.logging import get_logger, logging_configuration

log = get_logger(__name__)

INITIAL_DELAY_SECONDS, MAX_DELAY_SECONDS = 0.5, 60.0
"""The delays before replacements: each is twice the last."""
STABLE_SECONDS = 60.0
"""A process that has served for this long is replaced after the initial delay again."""
REPORT_TIMEOUT_SECONDS = 1.0
QUIET_SECONDS = 10.0
"""A process that has not reported its state for this long gets no requests until it does, or is replaced."""


class EngineProcess:
    """Implements `EngineClient`."""

    def __init__(
        self,
        device: Device,
        settings: GenerationSettings,
        *,
        max_batch_size: int,
        preload: str | None = None,
        memory_gb_per_second: float = 0.0,
        cpu_threads: int | None = None,
        module: str = HOST_MODULE,
    ) -> None:
        """`settings` are those of the service, and `memory_gb_per_second` is the bandwidth of its slowest GPU.
        `cpu_threads` limits the threads of the process's matrix products. `module` is the main program."""
        self.device = device
        self.max_batch_size = max_batch_size
        self.on_capacity_changed: Callable[[], None] = lambda: None
        self._settings = settings
        self._module = module
        self._preload = preload
        self._memory_gb_per_second = memory_gb_per_second
        self._environment = {VISIBLE_DEVICES: device.uuid}
        if cpu_threads is not None:
            self._environment["OMP_NUM_THREADS"] = str(cpu_threads)
        self._link: EngineLink | None = None
        self._is_spawned = asyncio.Event()
        """Not set while a process is being created: it has no link yet, but will take requests."""
        self._is_spawned.set()
        self._supervisor: asyncio.Task[None] | None = None
        self._state = EngineState.STARTING
        self._problem = "it is starting"
        self._restarts = 0
        self._is_stopping = False
        self._serving_since: float | None = None
        self._quiet_timer: asyncio.TimerHandle | None = None
        self._status = self._idle_status()
        self._models: dict[ModelInfo, ModelExecution | None] = {}

    @property
    def capacity(self) -> int:
        return self.max_batch_size if self._state is EngineState.SERVING else 0

    async def start(self) -> None:
        self._is_spawned.clear()
        self._supervisor = asyncio.create_task(self._supervise())

    async def stop(self) -> None:
        if self._supervisor is None:
            return
        if self._link is None:
            self._supervisor.cancel()
            self._is_spawned.set()
        else:
            self._is_stopping = True
            self._link.stop()
        await asyncio.gather(self._supervisor, return_exceptions=True)

    def check(self) -> None:
        if self._state is not EngineState.SERVING:
            raise self._unavailable()

    def report(self) -> EngineReport:
        link = self._link
        pid = None if link is None else link.pid
        return EngineReport(self.device, self._state, self._problem, self._restarts, self._status, self._models, pid)

    def models(self) -> Mapping[ModelInfo, ModelExecution | None]:
        return self._models

    async def refresh(self) -> None:
        if self._link is not None:
            with suppress(TimeoutError, ServiceError):
                async with asyncio.timeout(REPORT_TIMEOUT_SECONDS):
                    await self._link.report()

    async def submit(
        self, info: ModelInfo, parameters: GenerationParameters, origin: RequestOrigin
    ) -> GenerationHandle:
        link = await self._require_link()
        return await link.submit(
            info,
            parameters,
            origin,
            buffer_seconds=self._settings.buffer_seconds,
            stall_seconds=self._settings.stall_seconds,
        )

    async def load(self, info: ModelInfo) -> None:
        link = await self._require_link()
        await link.load(info.name)

    async def unload(self, name: str) -> None:
        link = await self._require_link()
        await link.unload(name)

    async def _require_link(self) -> EngineLink:
        await self._is_spawned.wait()
        if self._link is None:
            raise self._unavailable()
        return self._link

    def _unavailable(self) -> Unavailable:
        return Unavailable(
            f"the engine on {self.device.name} does not accept requests: {self._problem}",
            reason=ENGINE_UNAVAILABLE,
            retry_after_seconds=INITIAL_DELAY_SECONDS,
        )

    async def _supervise(self) -> None:
        """Keeps a process running until `stop`."""
        delay_seconds = INITIAL_DELAY_SECONDS
        while True:
            reason = await self._run_process()
            if self._is_stopping:
                return
            served_since, self._serving_since = self._serving_since, None
            if served_since is not None and time.monotonic() - served_since >= STABLE_SECONDS:
                delay_seconds = INITIAL_DELAY_SECONDS
            self._status, self._models = self._idle_status(), {}
            self._set_state(EngineState.FAILED, f"its process failed: {reason}")
            log.error("engine_process_failed", device=self.device.name, reason=reason, delay_seconds=delay_seconds)
            await asyncio.sleep(delay_seconds)
            delay_seconds = min(2 * delay_seconds, MAX_DELAY_SECONDS)
            self._restarts += 1
            self._set_state(EngineState.STARTING, self._problem)

    async def _run_process(self) -> str:
        """Runs one process to its end. Returns why it ended."""
        configuration = messages.Configure(
            self._settings.model_copy(
                update={
                    "devices": "cpu" if self.device.kind == "cpu" else "0",
                    "max_batch_size": self.max_batch_size,
                }
            ).model_dump_json(),
            self.device.name,
            self._preload,
            self._memory_gb_per_second,
            *logging_configuration(),
        )
        self._is_spawned.clear()
        try:
            self._link = await EngineLink.start(configuration, self._environment, self._on_snapshot, self._module)
        except OSError as error:
            return f"it can't be started: {error}"
        finally:
            self._is_spawned.set()
        log.info("engine_process_started", device=self.device.name, pid=self._link.pid)
        try:
            return await self._link.run()
        finally:
            self._link = None
            self._expect_snapshot(None)

    def _on_snapshot(self, snapshot: messages.Snapshot) -> None:
        self._expect_snapshot(QUIET_SECONDS)
        self._status = snapshot.status
        self._models = dict(snapshot.models)
        match snapshot.problem:
            case None:
                self._serving_since = self._serving_since or time.monotonic()
                if self._state is not EngineState.SERVING:
                    log.info("engine_process_serving", device=self.device.name)
                self._set_state(EngineState.SERVING, "")
            case messages.ErrorData(reason="MODEL_LOADING") as problem:
                self._set_state(EngineState.STARTING, problem.message)
            case problem:
                self._set_state(EngineState.FAILED, problem.message)

    def _expect_snapshot(self, seconds: float | None) -> None:
        """Starts the time within which the next snapshot is expected anew; None if none is expected."""
        if self._quiet_timer is not None:
            self._quiet_timer.cancel()
        self._quiet_timer = None if seconds is None else asyncio.get_running_loop().call_later(seconds, self._on_quiet)

    def _on_quiet(self) -> None:
        """Takes the engine out of service: its process may have been stopped, or hang."""
        if self._state is EngineState.SERVING:
            self._status = replace(self._status, steps_per_second=0.0, audio_seconds_per_second=0.0)
            self._set_state(EngineState.FAILED, f"its process has not responded for {QUIET_SECONDS:g} s")
            log.warning("engine_process_quiet", device=self.device.name, seconds=QUIET_SECONDS)

    def _set_state(self, state: EngineState, problem: str) -> None:
        was_serving = self._state is EngineState.SERVING
        self._state, self._problem = state, problem
        if was_serving != (state is EngineState.SERVING):
            self.on_capacity_changed()

    def _idle_status(self) -> EngineStatus:
        return EngineStatus(
            running=0,
            waiting=0,
            max_batch_size=self.max_batch_size,
            max_waiting=self._settings.max_waiting,
            steps_per_second=0.0,
            audio_seconds_per_second=0.0,
            kv_reserved_bytes=0,
            kv_limit_bytes=0,
        )
