"""Simulated engines behind a simulated service: the engine's real scheduler and threads, under a virtual clock.

Their model's calls take the time that `engine_simulation_costs` computes, or that was measured on a GPU.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Sequence as Sequences
from dataclasses import dataclass, field
from typing import Any

from benchmarks.engine_simulation_costs import FRAME_RATE_HZ, Costs
from benchmarks.engine_simulation_model import INFO, SimulatedModel
from benchmarks.virtual_time import VirtualClock, VirtualCondition
from dgx_music.errors import ServiceError
from generation_service.engine.device_thread import DeviceThread
from generation_service.engine.model_cache import ModelCache
from generation_service.engine.prompt_thread import PromptThread
from generation_service.engine.scheduler import Scheduler
from generation_service.engine.sequence import Sequence
from generation_service.engine.shared_state import LoopCalls, SharedState
from generation_service.engine.throughput import Throughput
from generation_service.models.base import FloatArray, GenerationParameters, MetadataValue, Section
from generation_service.models.catalog import BuiltInModel, ModelCatalog

SERVICE_CHUNK_SECONDS = 50e-6
"""The work of the service's process for a chunk of any engine: decode the message, send it on. An assumption."""


@dataclass(slots=True)
class Request:
    """A request and what became of it; times are those of the virtual clock."""

    arrives_at: float
    frames: int
    client: str = "client"
    prompt: str = "prompt"
    admitted_at: float = float("inf")
    first_audio_at: float = float("inf")
    finished_at: float = float("inf")
    frames_received: int = 0
    gap: float = 0.0
    error: ServiceError | None = None

    @property
    def first_audio_seconds(self) -> float:
        """From admission to the first 100 ms."""
        return self.first_audio_at - self.admitted_at

    @property
    def wait_seconds(self) -> float:
        return self.admitted_at - self.arrives_at

    @property
    def run_seconds(self) -> float:
        return self.finished_at - self.admitted_at


class _Sink:
    """Receives a request's results in the service's process."""

    def __init__(self, service: Service, request: Request) -> None:
        self._service, self._request = service, request
        self.sequence: Sequence | None = None

    def on_started(self, metadata: Mapping[str, MetadataValue], sections: tuple[Section, ...]) -> None:
        self._request.admitted_at = self._service.clock.monotonic()

    def on_block(self, block: FloatArray) -> None:
        request = self._request
        request.frames_received += len(block)
        received_at = self._service.handle_chunk()
        if request.frames_received >= FRAME_RATE_HZ // 10:
            request.first_audio_at = min(request.first_audio_at, received_at)
        assert self.sequence is not None
        self.sequence.frames_buffered -= len(block)

    def on_finished(self, error: ServiceError | None) -> None:
        self._request.finished_at, self._request.error = self._service.clock.monotonic(), error
        self._service.unfinished -= 1
        if not self._service.unfinished:
            self._service.all_finished.notify()


class Service:
    """The process that routes requests to engines and passes on their audio."""

    def __init__(self, clock: VirtualClock, requests: int) -> None:
        self.clock = clock
        self.busy_until = 0.0
        self.unfinished = requests
        self.all_finished = VirtualCondition(clock)

    def handle_chunk(self) -> float:
        """When a chunk that arrives now has been passed on. Chunks are handled one after another."""
        self.busy_until = max(self.busy_until, self.clock.monotonic()) + SERVICE_CHUNK_SECONDS
        return self.busy_until


class SimulatedEngine:
    """One device: the engine's scheduler and threads, and a simulated model."""

    def __init__(self, clock: VirtualClock, model: SimulatedModel, scheduler: Scheduler) -> None:
        self.model = model
        models = ModelCache(ModelCatalog(lambda: [BuiltInModel(INFO, lambda: self.model)]))
        models.get(INFO)
        self._shared: Any = SharedState(models, scheduler, Throughput(clock.monotonic), clock.monotonic)
        self._shared.lock, self._shared.device_work, self._shared.prompt_work = (
            VirtualCondition(clock) for _ in range(3)
        )
        self._device_thread, self._prompt_thread = build_threads(self._shared)
        clock.spawn(self._device_thread._run)
        clock.spawn(self._prompt_thread._run)

    @property
    def load(self) -> int:
        """Requests running and waiting, by which the service routes."""
        return self._shared.scheduler.running_count + self._shared.scheduler.waiting_count  # type: ignore[no-any-return]

    def submit(self, service: Service, request: Request) -> None:
        """As `Engine.submit`."""
        sink = _Sink(service, request)
        parameters = GenerationParameters(request.prompt, request.frames, seed=0)
        sink.sequence = sequence = Sequence(INFO, parameters, 1 << 40, sink, client=request.client)
        sequence.prompt = self._shared.find_prompt_state(sequence)
        self._shared.scheduler.add(sequence)
        self._shared.prompt_work.notify()
        self._shared.device_work.notify()

    def stop(self) -> None:
        self._prompt_thread.stop()
        self._device_thread.stop()


def build_threads(shared: SharedState) -> tuple[DeviceThread, PromptThread]:
    """The threads of an engine, which are run under the virtual clock instead of being started."""

    def call(function: Callable[..., object], *arguments: object) -> None:
        function(*arguments)

    device_thread = DeviceThread(shared, LoopCalls(call))
    return device_thread, PromptThread(shared, device_thread, LoopCalls(call))


@dataclass(slots=True)
class Simulation:
    """What a simulation saw."""

    requests: list[Request]
    gaps: list[float] = field(default_factory=list)
    """The longest time between two steps of each request."""
    seconds: float = 0.0
    longest_step: float = 0.0
    steps: int = 0
    rows: int = 0

    @property
    def audio_seconds_per_second(self) -> float:
        return sum(request.frames for request in self.requests) / FRAME_RATE_HZ / self.seconds

    def first_audio(self, quantile: float) -> float:
        return percentile([request.first_audio_seconds for request in self.requests], quantile)

    def waits(self, client: str) -> list[float]:
        return [request.wait_seconds for request in self.requests if request.client == client]


def choose_least_loaded(engines: Sequences[SimulatedEngine]) -> SimulatedEngine:
    """As the service routes."""
    return min(engines, key=lambda engine: engine.load)


def simulate(
    costs: Costs,
    requests: Iterable[Request],
    *,
    engines: int = 1,
    max_batch_size: int = 128,
    make_scheduler: Callable[[int, int], Scheduler] = Scheduler,
    make_model: Callable[[VirtualClock, Costs, int], SimulatedModel] = SimulatedModel,
    choose: Callable[[Sequences[SimulatedEngine]], SimulatedEngine] = choose_least_loaded,
) -> Simulation:
    """Runs all requests to their end. The last three arguments replace a mechanism, to see what it is worth."""
    clock = VirtualClock()
    pending = sorted(requests, key=lambda request: request.arrives_at)
    simulation = Simulation(pending)
    service = Service(clock, len(pending))
    devices = [
        SimulatedEngine(clock, make_model(clock, costs, max_batch_size), make_scheduler(max_batch_size, len(pending)))
        for _ in range(engines)
    ]

    def route() -> None:
        for request in pending:
            clock.sleep(request.arrives_at - clock.monotonic())
            choose(devices).submit(service, request)
        with service.all_finished:
            service.all_finished.wait_for(lambda: not service.unfinished)
        for device in devices:
            device.stop()

    clock.spawn(route)
    clock.run()
    if service.unfinished:
        raise RuntimeError(f"{service.unfinished} of {len(pending)} requests hang: no thread has anything to wait for")
    simulation.seconds = max(request.finished_at for request in pending) - pending[0].arrives_at
    for device in devices:
        simulation.gaps += device.model.gaps
        simulation.longest_step = max(simulation.longest_step, device.model.longest_step)
        simulation.steps += device.model.steps
        simulation.rows += device.model.rows
    return simulation


def poisson(rate: float, seconds: float, frames: int, seed: int = 0) -> list[Request]:
    """Requests that arrive independently, `rate` per second, each with a prompt of its own."""
    draws, now, requests = random.Random(seed), 0.0, []
    while (now := now + draws.expovariate(rate)) < seconds:
        requests.append(Request(now, frames, prompt=f"prompt {len(requests)}"))
    return requests


def burst(count: int, frames: int, at: float = 0.0, client: str = "client") -> list[Request]:
    """Requests that arrive at once, each with a prompt of its own."""
    return [Request(at, frames, client, f"{client} {index}") for index in range(count)]


def percentile(values: Iterable[float], quantile: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(quantile * len(ordered)))]
