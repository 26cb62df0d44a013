"""Cancelling one of a full batch of MusicGen requests in the engine."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import pytest

pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("transformers", reason="the text encoder is transformers'")

from dgx_music.errors import Aborted, ServiceError
from generation_service.engine.engine import Engine
from generation_service.engine.request_handle import GenerationHandle
from generation_service.models.base import FloatArray, GenerationParameters
from generation_service.models.catalog import BuiltInModel, ModelCatalog
from generation_service.models.musicgen.loader import find_musicgen
from generation_service.models.musicgen.model import MusicGenState
from tests.support.generator_runs import LateEvent
from tests.support.golden_codes import HOP
from tests.support.musicgen_runs import load_model, run

RUNNING = 8
CANCELLED = 3
WAIT_SECONDS = 30.0
REQUESTS = [
    GenerationParameters(f"piece {seed}" * (seed % 3), (20 + 2 * seed) * HOP, seed) for seed in range(RUNNING + 1)
]


async def read(handle: GenerationHandle) -> FloatArray:
    return np.concatenate([block async for block in handle])


@pytest.mark.parametrize(
    ("channels", "generator"),
    [("mono", "eager"), pytest.param("stereo", "eager", marks=pytest.mark.slow), ("mono", "resident")],
)
async def test_cancelled_request_frees_its_row_within_one_step_and_leaves_the_others_unchanged(
    channels: str, generator: str, request: pytest.FixtureRequest, t5: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"copy_results": LateEvent} if generator == "resident" else {}
    model = load_model(find_musicgen(request.getfixturevalue(channels)), generator, **options)
    alone = [run(model, [(parameters, 0)])[0] for parameters in REQUESTS]

    states: dict[int, MusicGenState] = {}
    sizes: dict[int, int] = {}
    batches: list[list[int]] = []
    reserved: list[int] = []
    reached, opened = threading.Event(), threading.Event()
    prefill, step = model.prefill, model.step

    def recording_prefill(parameters: GenerationParameters) -> MusicGenState:
        before = model.memory.reserved_bytes
        states[parameters.seed] = prefill(parameters)
        sizes[parameters.seed] = model.memory.reserved_bytes - before
        return states[parameters.seed]

    def recording_step(batch: Sequence[MusicGenState]) -> list[FloatArray | ServiceError]:
        seeds = [next(seed for seed, state in states.items() if state is each) for each in batch]
        batches.append(seeds)
        reserved.append(model.memory.reserved_bytes)
        blocks = step(batch)
        if len(seeds) == RUNNING and CANCELLED in seeds and states[CANCELLED].row.position == 10:
            reached.set()
            assert opened.wait(WAIT_SECONDS)
        return blocks

    monkeypatch.setattr(model, "prefill", recording_prefill)
    monkeypatch.setattr(model, "step", recording_step)
    engine = Engine(ModelCatalog(lambda: [BuiltInModel(model.info, lambda: model)]), max_batch_size=RUNNING)
    await engine.start()
    handles = [engine.submit(model.info, parameters) for parameters in REQUESTS]
    readers = {seed: asyncio.create_task(read(handle)) for seed, handle in enumerate(handles)}
    assert await asyncio.to_thread(reached.wait, WAIT_SECONDS)
    assert (engine.status().running, engine.status().waiting) == (RUNNING, 1)
    last = len(batches)
    handles[CANCELLED].cancel()
    opened.set()
    with pytest.raises(Aborted, match="cancelled"):
        await readers.pop(CANCELLED)
    samples = {seed: await reader for seed, reader in readers.items()}

    assert sorted(batches[last - 1]) == list(range(RUNNING))
    assert batches[last][-1] == RUNNING, "the waiting request has the row"
    assert sorted(batches[last]) == [seed for seed in range(RUNNING + 1) if seed != CANCELLED]
    assert reserved[last] == sum(sizes[seed] for seed in batches[last]), "the memory has been released"
    for seed, actual in samples.items():
        state, expected = alone[seed]
        count = state.codes.total_frames
        assert np.array_equal(states[seed].codes.select_frames(0, count), state.codes.select_frames(0, count)), seed
        assert np.array_equal(actual, expected), seed
    await engine.stop()
    assert model.memory.reserved_bytes == 0
