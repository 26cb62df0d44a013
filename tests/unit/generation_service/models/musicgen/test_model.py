"""MusicGen through the `Model` interface, from files in the real format to samples."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("transformers", reason="the text encoder is transformers'")

import torch

from dgx_music.errors import ResourceExhausted, ServiceError
from generation_service.models.base import FloatArray, GenerationParameters, TooLarge
from generation_service.models.musicgen.code_generator import CodeRow, StepResult
from generation_service.models.musicgen.codec.chunk_decoder import DecoderStream
from generation_service.models.musicgen.loader import find_musicgen, load_musicgen
from generation_service.models.musicgen.model import MusicGen, MusicGenState
from generation_service.models.musicgen.resident.resident_code_generator import ResidentCodeGenerator
from tests.support.musicgen_runs import load_model, load_with_short_window, step_all

HOP = 640
SMALL_BYTES = 6 * 3 * 4 * 2 * 64 * 32
"""6 pages."""


@pytest.fixture(scope="module", params=["mono-eager", "stereo-resident"])
def model(request: pytest.FixtureRequest, t5: None) -> MusicGen:
    folder, generator = request.param.split("-")
    return load_model(find_musicgen(request.getfixturevalue(folder)), generator)


@pytest.fixture(scope="module")
def small_memory(mono: Path, generator: str, t5: None) -> MusicGen:
    """For one request of 60 frames, but not for two."""
    if generator == "eager":
        return load_musicgen(find_musicgen(mono), kv_bytes=3 * 4 * 2 * 2 * 64 * 110)
    return load_with_short_window(mono, generator, kv_bytes=SMALL_BYTES)


def parameters(prompt: str = "calm piano", frames: int = 20 * HOP, seed: int = 1) -> GenerationParameters:
    return GenerationParameters(prompt, frames, seed)


def run(model: MusicGen, state: MusicGenState) -> list[FloatArray]:
    blocks: list[FloatArray] = []
    while sum(map(len, blocks)) < state.frames:
        assert len(blocks) < 2000
        blocks += step_all(model, [state])
    model.release(state)
    return blocks


def run_alone(model: MusicGen, request: GenerationParameters) -> FloatArray:
    return np.concatenate(run(model, model.prefill(request)))


@pytest.mark.parametrize("frames", [1, HOP - 1, HOP, HOP + 1, 7 * HOP, 61 * HOP + 13])
def test_output_has_exactly_the_requested_frames(model: MusicGen, frames: int) -> None:
    state = model.prefill(parameters(frames=frames))
    blocks = run(model, state)
    samples = np.concatenate(blocks)
    assert samples.shape == (frames, model.info.channels)
    assert samples.dtype == np.float32
    assert np.abs(samples).max() > 0
    assert len(step_all(model, [state])[0]) == 0, "a finished state yields nothing more"


def test_streamed_audio_equals_decoding_all_codes_at_once(model: MusicGen) -> None:
    state = model.prefill(parameters(frames=100 * HOP))
    blocks = run(model, state)
    whole = model._clips.codec.decode(torch.from_numpy(state.codes.select_frames(0, 100)), model.info.channels)
    np.testing.assert_allclose(np.concatenate(blocks), whole, atol=1e-4)
    sounding = [index for index, block in enumerate(blocks) if len(block)]
    delay = model._generator.config.max_delay
    assert [index + 1 - delay for index in sounding] == [5, 9, 19, 44, 94, 100], "chunks grow"


def test_audio_does_not_depend_on_the_batch(model: MusicGen) -> None:
    requests = [
        parameters("calm piano", 33 * HOP, seed=1),
        parameters("calm piano", 50 * HOP + 5, seed=2),
        parameters("fast drums and a very long description of them", 20 * HOP, seed=1),
        parameters("lofi", 41 * HOP, seed=4),
    ]
    expected = [run_alone(model, request) for request in requests]
    assert not np.array_equal(expected[0][: 20 * HOP], expected[1][: 20 * HOP]), "the audio depends on the seed"
    assert not np.array_equal(expected[0][: 20 * HOP], expected[2][: 20 * HOP]), "the audio depends on the prompt"

    states: list[MusicGenState] = []
    blocks: dict[int, list[FloatArray]] = {}
    cancelled = model.prefill(parameters("gone soon", 100 * HOP, seed=9))
    active: Sequence[MusicGenState] = [cancelled]
    for now in range(120):
        if now % 7 == 0 and len(states) < len(requests):
            states.append(model.prefill(requests[len(states)]))
            blocks[len(states) - 1] = []
        if now == 25:
            model.release(cancelled)
        indices = [i for i, state in enumerate(states) if sum(map(len, blocks[i])) < state.frames]
        active = [states[i] for i in indices] + ([cancelled] if now < 25 else [])
        if not active:
            break
        for i, block in zip(indices, step_all(model, active), strict=False):
            blocks[i].append(block)
    for i, samples in enumerate(expected):
        assert np.array_equal(np.concatenate(blocks[i]), samples), requests[i]
        model.release(states[i])
    assert model.memory.reserved_bytes == 0


def test_request_that_exceeds_free_memory_is_rejected_and_others_continue(small_memory: MusicGen) -> None:
    state = small_memory.prefill(parameters(frames=60 * HOP))
    with pytest.raises(ResourceExhausted, match="KV cache"):
        small_memory.prefill(parameters(frames=60 * HOP))
    run(small_memory, state)
    small_memory.release(small_memory.prefill(parameters(frames=60 * HOP)))


@pytest.mark.parametrize("clip_frames", [0, 7])
def test_too_large_request_error_names_the_longest_duration(mono: Path, t5: None, clip_frames: int) -> None:
    model = load_musicgen(find_musicgen(mono), kv_bytes=3 * 4 * 2 * 2 * 64 * 110)
    clip = np.zeros((clip_frames * HOP, 1), np.float32) if clip_frames else None
    check_longest_duration(model, replace(parameters(frames=500 * HOP), prompt_audio=clip))


def test_too_large_prompt_error_names_the_longest_duration(mono: Path, t5: None) -> None:
    model = load_with_short_window(mono, "resident", kv_bytes=SMALL_BYTES)
    check_longest_duration(model, parameters("a long prompt, " * 7, frames=60 * HOP))
    with pytest.raises(TooLarge, match=r" MiB; start the server with more free memory$"):
        model.prefill(parameters("a very long prompt, " * 40))


def check_longest_duration(model: MusicGen, request: GenerationParameters) -> None:
    """The request is too large, one of the duration that the error names fits, and one a little longer does not."""
    with pytest.raises(TooLarge, match=r"^duration_seconds: the KV cache would need .* with more free memory") as error:
        model.prefill(request)
    match = re.search(r"all requests together have (.+) MiB; request at most (.+) s, or", error.value.message)
    assert match is not None
    assert float(match[1]) == round(model.memory.limit_bytes / 2**20, 1)
    longest = round(float(match[2]) * 32_000)
    model.release(model.prefill(replace(request, frames=longest)))
    with pytest.raises(TooLarge):
        model.prefill(replace(request, frames=longest + 5 * HOP))
    assert model.memory.reserved_bytes == 0


def test_failed_prefill_releases_its_memory(
    small_memory: MusicGen, generator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise RuntimeError("no such shape")

    for target, method in ((small_memory._generator, "begin_window"), (small_memory._decoder, "open")):
        with monkeypatch.context() as patched:
            patched.setattr(target, method, broken)
            with pytest.raises(RuntimeError, match="no such shape"):
                small_memory.prefill(parameters())
        assert small_memory.memory.reserved_bytes == 0


def test_model_blocks_only_if_nothing_else_can_be_done(
    mono: Path, generator: str, t5: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk that the decoder is slow to deliver is waited for once nobody has more codes to generate."""
    model = load_model(find_musicgen(mono), generator)
    state = model.prefill(parameters(frames=12 * HOP))
    waits: list[bool] = []
    ready: list[FloatArray] = []
    take, wait = model._decoder.take, model._decoder.wait

    def take_what_was_waited_for(stream: DecoderStream) -> FloatArray:
        return ready.pop() if ready else np.zeros((0, 1), np.float32)

    def recording_wait(stream: DecoderStream) -> None:
        waits.append(state.codes.is_done)
        wait(stream)
        ready.append(take(stream))

    monkeypatch.setattr(model._decoder, "take", take_what_was_waited_for)
    monkeypatch.setattr(model._decoder, "wait", recording_wait)
    other = model.prefill(parameters(frames=HOP))
    for _ in range(50):
        assert sum(map(len, step_all(model, [state]))) == 0
    assert waits == []
    model.release(other)
    assert sum(map(len, run(model, state))) == state.frames
    assert waits == [True]


def test_state_that_is_not_finite_fails_alone(
    mono: Path, generator: str, t5: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its error arrives in place of audio, and the others make the same music as without it."""
    model = load_with_short_window(mono, generator)
    requests = [parameters(prompt, 12 * HOP, seed) for seed, prompt in enumerate(("", "lofi"))]
    expected = run_alone(model, requests[0])
    states = [model.prefill(request) for request in requests]
    damaged, collect = states[1].row, model._generator.collect
    steps = 0

    def spoil(*, wait: bool) -> list[StepResult[CodeRow]]:
        nonlocal steps
        results = collect(wait=wait)
        for result in results:
            steps += 1
            if steps >= 9 and damaged in result.rows:
                result.is_finite[result.rows.index(damaged)] = False
        return results

    monkeypatch.setattr(model._generator, "collect", spoil)
    blocks: list[FloatArray] = []
    errors: list[ServiceError] = []
    while sum(map(len, blocks)) < states[0].frames:
        block, other = (*model.step(states), None)[:2]
        assert not isinstance(block, ServiceError)
        blocks.append(block)
        if isinstance(other, ServiceError):
            errors.append(other)
            model.release(states.pop())
    (error,) = errors
    assert error.reason == "MODEL_OUTPUT"
    assert "not finite after 5 frames of codes, for the seed 1; retry, or set DGX_MUSIC_PRECISION" in error.message
    assert np.array_equal(np.concatenate(blocks), expected)
    model.release(states[0])
    assert model.memory.reserved_bytes == 0


def test_audio_that_cannot_be_decoded_fails_its_state_alone(
    small_memory: MusicGen, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = small_memory.prefill(parameters(frames=12 * HOP))

    def broken(stream: DecoderStream) -> FloatArray:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(small_memory._decoder, "take", broken)
    results = [small_memory.step([state])[0] for _ in range(10)]
    error = results[-1]
    assert isinstance(error, ServiceError)
    assert error.message == "model 'mono' failed to decode audio after 0 frames: RuntimeError: no such kernel"
    monkeypatch.setattr(small_memory._decoder, "take", lambda stream: pytest.fail("is not asked again"))
    assert small_memory.step([state])[0] is error
    small_memory.release(state)
    assert small_memory.memory.reserved_bytes == 0


def test_device_time_of_a_prefill_is_known_where_prefill_returns_early(model: MusicGen) -> None:
    model.release(model.prefill(parameters()))
    assert (model.prefill_seconds > 0) == isinstance(model._generator, ResidentCodeGenerator)


def test_model_info(mono: Path, stereo: Path) -> None:
    fp32, int8 = find_musicgen(mono).info, find_musicgen(mono, precision="int8").info
    assert (fp32.name, fp32.channels, fp32.sample_rate_hz) == ("mono", 1, 32000)
    assert fp32.licence == "NOASSERTION"
    assert not fp32.is_synthesiser
    assert find_musicgen(stereo, name="other").info.name == "other"
    assert len({fp32.version, int8.version, find_musicgen(stereo).info.version}) == 3
