"""A MusicGen that takes the time of `engine_simulation_costs` and makes silence, and engines that run it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.engine_simulation_costs import CFG_ROWS, FRAME_RATE_HZ, Costs
from benchmarks.virtual_time import VirtualClock
from dgx_music.errors import ResourceExhausted
from generation_service.models.base import FloatArray, GenerationParameters, MetadataValue, ModelInfo, Section

WINDOW_FRAMES, STRIDE_FRAMES = 1500, 900
"""A window of codes, and by how much the next one is shifted; the rest of it is read again."""
PAGE_POSITIONS = 32
DELAY_FRAMES, LOOK_AHEAD_FRAMES = 3, 4
CHUNK_FRAMES = (5, 4, 10, 25, 50)
"""As in `codec/chunk_decoder.py`, which imports torch."""
PROMPT_CACHE = 4096

INFO = ModelInfo("simulated", "", "", "", FRAME_RATE_HZ, 1, 600.0, is_synthesiser=False)
"""Its audio has one frame per frame of codes, so that a simulation moves no samples."""


@dataclass(slots=True)
class SimulatedState:
    """One request in the batch."""

    frames: int
    pages: int
    steps: int = 0
    decoded: int = 0
    chunks: int = 0
    pending: list[tuple[float, int]] = field(default_factory=list)
    """Chunks in the decoder: when their samples reach the host, and how many frames they are."""
    last_step_at: float | None = None
    longest_gap: float = 0.0
    """The longest time from one of its steps to its next."""
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)
    sections: Sequence[Section] = ()

    @property
    def position(self) -> int:
        """Position in the present window."""
        passed = max(0, self.steps - WINDOW_FRAMES)
        return self.steps - -(-passed // STRIDE_FRAMES) * STRIDE_FRAMES

    @property
    def is_generated(self) -> bool:
        return self.steps >= self.frames + DELAY_FRAMES

    def take_due_chunk(self) -> int:
        """The frames of the next chunk whose codes are there; 0 if there is none yet."""
        chunk = min(CHUNK_FRAMES[min(self.chunks, len(CHUNK_FRAMES) - 1)], self.frames - self.decoded)
        ready = self.steps - DELAY_FRAMES
        if not chunk or ready < min(self.decoded + chunk + LOOK_AHEAD_FRAMES, self.frames):
            return 0
        self.decoded += chunk
        self.chunks += 1
        return chunk


class SimulatedModel:
    """Implements `generation_service.models.base.Model`; each call takes its time on the virtual clock."""

    info = INFO
    prompt_batch_size = 16

    def __init__(self, clock: VirtualClock, costs: Costs, max_requests: int) -> None:
        self._clock, self._costs = clock, costs
        self._free_pages = self.pages = costs.pages_limit(max_requests, WINDOW_FRAMES + DELAY_FRAMES, PAGE_POSITIONS)
        self._prompts: OrderedDict[str, None] = OrderedDict()
        self._decoder_busy = 0.0
        """Time that the decoder's work takes from the next step."""
        self.gaps: list[float] = []
        """The longest gap of each request that has ended."""
        self.longest_step = 0.0
        self.steps = self.rows = 0

    def encode_prompts(self, requests: Sequence[GenerationParameters]) -> None:
        self._encode([parameters.prompt for parameters in requests])

    def _encode(self, prompts: Sequence[str]) -> None:
        missing = [prompt for prompt in prompts if prompt not in self._prompts]
        if missing:
            self._clock.sleep(self._costs.encode_prompts(len(missing)))
            self._prompts.update(dict.fromkeys(missing))
            while len(self._prompts) > PROMPT_CACHE:
                self._prompts.popitem(last=False)

    def prefill(self, parameters: GenerationParameters) -> SimulatedState:
        positions = min(parameters.frames, WINDOW_FRAMES) + DELAY_FRAMES
        pages = CFG_ROWS * -(-positions // PAGE_POSITIONS)
        if pages > self._free_pages:
            raise ResourceExhausted(f"{pages} pages are needed, {self._free_pages} are free", reason="KV_MEMORY")
        self._encode([parameters.prompt])
        self._free_pages -= pages
        self._clock.sleep(self._costs.prefill())
        return SimulatedState(parameters.frames, pages)

    def step(self, states: Sequence[SimulatedState]) -> list[FloatArray]:
        active = [state for state in states if not state.is_generated]
        if active:
            seconds = self._costs.step(sum(state.position for state in active), len(active)) + self._decoder_busy
            self._decoder_busy = 0.0
            self.longest_step = max(self.longest_step, seconds)
            self.steps += 1
            self.rows += len(active)
            self._clock.sleep(seconds)
        else:  # Only chunks in the decoder are left: the model waits for the next of them.
            self._clock.sleep(max(0.0, min(state.pending[0][0] for state in states) - self._clock.monotonic()))
        now = self._clock.monotonic()
        for state in active:
            state.steps += 1
            if state.last_step_at is not None:
                state.longest_gap = max(state.longest_gap, now - state.last_step_at)
            state.last_step_at = now
        due = {id(state): chunk for state in active if (chunk := state.take_due_chunk())}
        if due:
            # After the last step a whole rest may be due; it is one chunk here, as its codes are all there.
            self._decoder_busy = self._costs.decode_busy(sum(due.values()))
            ready_at = now + self._costs.decode(sum(due.values()), max(due.values()))
            for state in active:
                if chunk := due.get(id(state)):
                    while state.is_generated and (more := state.take_due_chunk()):
                        chunk += more
                    state.pending.append((ready_at, chunk))
        return [self._collect(state, now) for state in states]

    def release(self, state: SimulatedState) -> None:
        self._free_pages += state.pages
        self.gaps.append(state.longest_gap)

    def _collect(self, state: SimulatedState, now: float) -> FloatArray:
        frames = 0
        while state.pending and state.pending[0][0] <= now:
            frames += state.pending.pop(0)[1]
        return _SILENCE[:frames]


_SILENCE: FloatArray = np.zeros((WINDOW_FRAMES * 20, 1), np.float32)
