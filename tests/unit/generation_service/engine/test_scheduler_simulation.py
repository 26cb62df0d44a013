"""What the scheduler promises under load, with the engine's real threads under a virtual clock and simulated models.

The times are those of a cost model, so these tests are about the scheduling, not about a GPU. Each promise is seen to
be broken when the mechanism that keeps it is taken out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import structlog

from benchmarks.engine_simulation_costs import H200, SMALL, Costs
from benchmarks.engine_simulation_model import SimulatedModel, SimulatedState
from benchmarks.engine_simulation_service import Request, burst, choose_least_loaded, percentile, poisson, simulate
from generation_service.engine import batch_runner, scheduler
from generation_service.engine.scheduler import Scheduler
from generation_service.engine.sequence import Sequence
from generation_service.models.base import GenerationParameters, PromptEncoder

COSTS = Costs(H200, SMALL)
SLOW_HOST = Costs(replace(H200, host_launch=3 * H200.host_launch), SMALL)
"""Admissions take 1 ms."""
PIECE_FRAMES = 250
BATCH = 16


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


def test_a_simulation_gives_the_same_result_each_time() -> None:
    first, second = (simulate(COSTS, poisson(20, 1, PIECE_FRAMES), max_batch_size=BATCH) for _ in range(2))
    assert [request.finished_at for request in first.requests] == [request.finished_at for request in second.requests]


def test_all_requests_finish_however_many_wait() -> None:
    simulation = simulate(COSTS, burst(12 * BATCH, 20), max_batch_size=BATCH)
    assert all(request.error is None and request.frames_received == 20 for request in simulation.requests)


class TestFairness:
    """A client with one request behind another with hundreds."""

    def wait(self, client: str) -> tuple[float, float]:
        """How long its request waits, and how long the longest of the others runs."""
        late = burst(1, PIECE_FRAMES, at=0.3, client=client)
        simulation = simulate(COSTS, burst(25 * BATCH, PIECE_FRAMES, client="many") + late, max_batch_size=BATCH)
        return late[0].wait_seconds, max(request.run_seconds for request in simulation.requests)

    def test_it_gets_the_next_free_place(self) -> None:
        waited, longest_run = self.wait("one")
        assert waited <= longest_run

    def test_it_waits_for_all_of_its_own_client(self) -> None:
        waited, longest_run = self.wait("many")
        assert waited > 10 * longest_run


class TestStalls:
    """Many requests that are admitted while others run."""

    def longest_stall(self) -> tuple[float, float]:
        requests = burst(24, PIECE_FRAMES) + burst(104, PIECE_FRAMES, at=0.1)
        simulation = simulate(SLOW_HOST, requests)
        return max(simulation.gaps), scheduler.MAX_STALL_SECONDS + simulation.longest_step

    def test_running_requests_are_stepped_in_time(self) -> None:
        stall, limit = self.longest_stall()
        assert stall <= limit
        assert scheduler.MAX_STALL_SECONDS <= 0.04

    def test_without_the_limit_they_are_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        _, limit = self.longest_stall()
        monkeypatch.setattr(scheduler, "MAX_STALL_SECONDS", 10.0)
        assert self.longest_stall()[0] > 1.5 * limit


class QueuedPrefill(SimulatedModel):
    """Its prefill returns early; the device works longer, before the next step."""

    prefill_seconds = 0.004

    def prefill(self, parameters: GenerationParameters) -> SimulatedState:
        self._decoder_busy += QueuedPrefill.prefill_seconds
        return super().prefill(parameters)


class UnmeasuredPrefill(QueuedPrefill):
    prefill_seconds = 0.0


class TestStallsByTheDevice:
    """The same, but only the device takes long to admit them."""

    def longest_stall(self, make_model: Callable[..., SimulatedModel]) -> float:
        requests = burst(24, PIECE_FRAMES) + burst(104, PIECE_FRAMES, at=0.1)
        return max(simulate(COSTS, requests, make_model=make_model).gaps)

    def test_running_requests_are_stepped_in_time(self) -> None:
        limit = scheduler.MAX_STALL_SECONDS + simulate(COSTS, burst(128, PIECE_FRAMES)).longest_step
        assert self.longest_stall(QueuedPrefill) <= limit
        assert self.longest_stall(UnmeasuredPrefill) > 1.5 * limit


class OneAdmissionPerStep(Scheduler):
    def admit(self, stalled_seconds: float = 0.0) -> Sequence | None:
        return None if stalled_seconds else super().admit(stalled_seconds)


class PromptsInPrefill(SimulatedModel):
    encode_prompts = None  # type: ignore[assignment]  # So that it is no PromptEncoder.


class TestAdmission:
    """A full batch of requests that arrive at once."""

    def admitted_after(self, **options: object) -> float:
        simulation = simulate(COSTS, burst(128, PIECE_FRAMES), **options)  # type: ignore[arg-type]
        return max(request.wait_seconds for request in simulation.requests)

    def test_burst_is_admitted_at_once(self) -> None:
        in_a_row = 128 * COSTS.prefill() + COSTS.encode_prompts(16)
        assert self.admitted_after() <= 1.5 * in_a_row

    def test_one_admission_per_step_takes_longer(self) -> None:
        assert self.admitted_after(make_scheduler=OneAdmissionPerStep) > 2 * self.admitted_after()

    def test_encoding_prompts_between_steps_takes_longer(self) -> None:
        assert not isinstance(PromptsInPrefill.__new__(PromptsInPrefill), PromptEncoder)
        assert self.admitted_after(make_model=PromptsInPrefill) > 2 * self.admitted_after()


class TestFirstAudio:
    """Requests that join a large batch one by one."""

    def test_it_comes_early_and_costs_the_others_little(self, monkeypatch: pytest.MonkeyPatch) -> None:
        first_audio, simulations = [], []
        for steps_ahead in (batch_runner.STEPS_AHEAD, 0):
            monkeypatch.setattr(batch_runner, "STEPS_AHEAD", steps_ahead)
            newcomers = [Request(0.4 + n / 40, 50, prompt=f"newcomer {n}") for n in range(24)]
            simulations.append(simulate(COSTS, poisson(400, 0.25, 300) + newcomers))
            first_audio.append(percentile([request.first_audio_seconds for request in newcomers], 0.9))
        ahead, together = simulations
        assert first_audio[0] <= 0.02
        assert first_audio[1] > 1.4 * first_audio[0]
        assert ahead.audio_seconds_per_second >= 0.95 * together.audio_seconds_per_second
        assert max(ahead.gaps) <= 2 * ahead.longest_step


class TestSeveralDevices:
    """The same requests per device, on one device and on eight."""

    def speed_up(self, choose: Callable[..., object] = choose_least_loaded) -> float:
        one, eight = (
            simulate(COSTS, burst(2 * BATCH * n, 100), engines=n, max_batch_size=BATCH, choose=choose)  # type: ignore[arg-type]
            for n in (1, 8)
        )
        return eight.audio_seconds_per_second / one.audio_seconds_per_second

    def test_eight_do_almost_eight_times_as_much(self) -> None:
        assert self.speed_up() >= 7.5

    def test_without_routing_by_load_they_do_not(self) -> None:
        assert self.speed_up(lambda devices: devices[0]) < 1.5


def test_short_requests_do_not_pay_for_long_ones() -> None:
    """With memory for eight long requests, a batch of short ones runs at once."""
    costs = Costs(H200, SMALL)
    pages = costs.pages_limit(8, 1503, 32)

    class LittleMemory(SimulatedModel):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)  # type: ignore[arg-type]
            self._free_pages = pages

    def running(frames: int) -> float:
        simulation = simulate(costs, burst(64, frames), make_model=LittleMemory)
        return percentile([request.wait_seconds for request in simulation.requests], 0.99) / (frames / 50)

    assert running(100) < running(1500) / 5
