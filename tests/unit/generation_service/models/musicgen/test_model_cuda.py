# ruff: noqa: E402
"""MusicGen on a GPU. What needs none is proved elsewhere: the same calls on the CPU in `test_model*.py` and in
`resident/`, the kernels by Triton's interpreter in `kernels/`. Here it is what only a GPU can show."""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("transformers", reason="the text encoder is transformers'")

from torch import Tensor

from generation_service.models.base import FloatArray, GenerationParameters
from generation_service.models.device_errors import is_fatal, is_out_of_memory
from generation_service.models.musicgen.codec.encodec_checkpoint import load_encodec
from generation_service.models.musicgen.conditions import WindowConditions
from generation_service.models.musicgen.loader import find_musicgen, load_musicgen
from generation_service.models.musicgen.model import MusicGen, MusicGenState
from generation_service.models.musicgen.resident.step_graphs import DirectCalls
from tests.support.checkpoints import WIDE, write_lm
from tests.support.compression_checkpoints import FULL_CODEC, write_compression_checkpoint
from tests.support.generated_codes import CodeRequest, generate_codes
from tests.support.generator_runs import resident_generator
from tests.support.golden_codes import clip as golden_clip
from tests.support.kernel_operations import kernel_operations

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU that torch can use"),
]

HOP = 640
MAX_BATCH_SIZE = 40
MIN_SNR_DB = 60.0
"""Of EnCodec in half precision against fp32 on the CPU."""


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose matrices have musicgen-small's sizes, in 4 layers, with the real codec."""
    folder = tmp_path_factory.mktemp("models") / "wide"
    write_lm(folder, WIDE)
    write_compression_checkpoint(folder, FULL_CODEC)
    return folder


def load(folder: Path, precision: str = "bf16", device: str = "cuda") -> MusicGen:
    found = find_musicgen(folder, device=device, precision=precision)  # type: ignore[arg-type]
    return load_musicgen(found, max_batch_size=MAX_BATCH_SIZE)


@pytest.fixture(scope="module")
def bf16(wide: Path, t5: None) -> MusicGen:
    return load(wide)


@pytest.fixture(scope="module")
def fp32(wide: Path, t5: None) -> MusicGen:
    return load(wide, "fp32")


@pytest.fixture
def limit_memory() -> Iterator[Callable[[], list[Tensor]]]:
    """A function that fills torch's memory to the last byte. The memory stays full until its result is dropped."""

    def fill() -> list[Tensor]:
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(torch.cuda.memory_reserved() / torch.cuda.mem_get_info()[1])
        filler: list[Tensor] = []
        for size in (1 << 26, 1 << 20, 1 << 9):  # Fills the memory that torch has reserved but does not use.
            with contextlib.suppress(torch.OutOfMemoryError):
                while True:
                    filler.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
        return filler

    yield fill
    torch.cuda.set_per_process_memory_fraction(1.0)


def request(
    model: MusicGen, prompt: str, frames: int, *, joins_at: int = 0, leaves_at: int | None = None, **sampling: Any
) -> CodeRequest:
    parameters = GenerationParameters(prompt, frames * HOP, **({"seed": 1} | sampling))
    return CodeRequest(
        parameters, WindowConditions.from_text(model._conditions.texts.encode(prompt)), frames, joins_at, leaves_at
    )


def varied_requests(model: MusicGen) -> list[CodeRequest]:
    """Requests of different lengths, prompts and sampling parameters, which join while others run."""
    return [
        request(model, "calm piano", 40),
        request(model, "calm piano", 300, seed=2, joins_at=5),
        request(model, "fast drums and a very long description of them " * 3, 150, seed=1, joins_at=5, top_p=0.9),
        request(model, "lofi", 41, seed=4, joins_at=60, temperature=0.0),
        request(model, "", 135, seed=5, joins_at=61, top_k=0, guidance_scale=1.0),
        *(request(model, f"choir {index}", 20 + index, seed=index, joins_at=90) for index in range(30)),
    ]


def alone(model: MusicGen, one: CodeRequest) -> np.ndarray[Any, Any]:
    return generate_codes(model._generator, [replace(one, joins_at=0, leaves_at=None)])[0]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8", "fp8"])
def test_codes_do_not_depend_on_the_changing_batch(wide: Path, t5: None, precision: str) -> None:
    model = load(wide, precision)
    requests = varied_requests(model)
    together = generate_codes(model._generator, requests)
    for one, codes in zip(requests[:8], together, strict=False):
        np.testing.assert_array_equal(codes, alone(model, one), err_msg=one.parameters.prompt)
    assert not np.array_equal(together[0], together[1][:, :40]), "the codes depend on the seed"
    assert model.memory.reserved_bytes == 0


def test_cancelled_request_in_flight_changes_no_other(bf16: MusicGen) -> None:
    kept = request(bf16, "calm piano", 120, seed=3)
    cancelled = [request(bf16, "drums", 200, seed=index, leaves_at=30 + index) for index in range(6)]
    # These take over the slots and the pages of those that leave, while steps of those still run.
    joining = [request(bf16, "strings", 50, seed=10 + index, joins_at=31 + index) for index in range(6)]
    codes = generate_codes(bf16._generator, [kept, *cancelled, *joining])
    np.testing.assert_array_equal(codes[0], alone(bf16, kept))
    for one, own in zip(joining, codes[7:], strict=True):
        np.testing.assert_array_equal(own, alone(bf16, one))
    assert bf16.memory.reserved_bytes == 0


def test_replayed_graphs_equal_direct_calls(bf16: MusicGen) -> None:
    requests = varied_requests(bf16)
    replayed = generate_codes(bf16._generator, requests)
    generator: Any = bf16._generator
    graphs, generator._graphs = generator._graphs, DirectCalls()
    try:
        called = generate_codes(generator, requests)
    finally:
        generator._graphs = graphs
    for one, other in zip(replayed, called, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.skipif(
    torch.cuda.is_available() and torch.cuda.get_device_capability() < (9, 0), reason="no early launches"
)
def test_kernels_that_are_launched_early_yield_the_same_codes(bf16: MusicGen, wide: Path) -> None:
    """Bit by bit, in graphs and launched directly: a kernel that read too early would see an older step."""
    requests = varied_requests(bf16)
    codes = []
    for pdl in (False, True):
        generator: Any = resident_generator(
            wide,
            window=320,
            slots=MAX_BATCH_SIZE,
            pages=1000,
            dtype=torch.bfloat16,
            operations=kernel_operations("bf16", pdl=pdl),
            device_name="cuda",
        )
        codes.append(generate_codes(generator, requests))
        generator._graphs = DirectCalls()
        codes.append(generate_codes(generator, requests))
    for own in zip(*codes, strict=True):
        assert all(np.array_equal(own[0], other) for other in own[1:])


def test_greedy_codes_in_fp32_equal_those_of_the_cpu(fp32: MusicGen, wide: Path, t5: None) -> None:
    reference = load(wide, "fp32", "cpu")
    requests = [request(reference, prompt, 100, temperature=0.0) for prompt in ("calm piano", "drums and a choir")]
    expected = generate_codes(reference._generator, requests)
    for codes, reference_codes in zip(generate_codes(fp32._generator, requests), expected, strict=True):
        np.testing.assert_array_equal(codes, reference_codes)


def test_sampled_codes_in_fp32_equal_those_of_the_cpu_mostly(fp32: MusicGen, wide: Path, t5: None) -> None:
    reference = load(wide, "fp32", "cpu")
    one = request(reference, "calm piano", 60, seed=7)
    expected = generate_codes(reference._generator, [one])[0]
    # The noise is the same bit by bit; the logits round differently, which seldom changes the best of their sums.
    assert (generate_codes(fp32._generator, [one])[0][:, :10] == expected[:, :10]).mean() > 0.9


def test_steps_are_launched_without_synchronization(bf16: MusicGen) -> None:
    generator: Any = bf16._generator
    one = request(bf16, "calm piano", 60)
    generate_codes(generator, [one])  # Captures what is not captured yet.
    debug_mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        codes = generate_codes(generator, [replace(one, conditions=WindowConditions.from_text(None))])
    finally:
        torch.cuda.set_sync_debug_mode(debug_mode)
    assert codes[0].shape[1] == 60


def test_results_arrive_in_the_order_of_the_steps(bf16: MusicGen) -> None:
    # Each step's result depends on all earlier codes, so a result that came too early or twice would change them.
    codes = [generate_codes(bf16._generator, [request(bf16, "calm piano", 200, seed=9)])[0] for _ in range(3)]
    np.testing.assert_array_equal(codes[0], codes[1])
    np.testing.assert_array_equal(codes[0], codes[2])


def run(model: MusicGen, states: list[MusicGenState]) -> list[FloatArray]:
    """Steps all states until they are done, and returns their samples."""
    blocks: list[list[FloatArray]] = [[] for _ in states]
    while active := [i for i, state in enumerate(states) if sum(map(len, blocks[i])) < state.frames]:
        for i, block in zip(active, model.step([states[i] for i in active]), strict=True):
            assert not isinstance(block, Exception), block
            blocks[i].append(block)
    return [np.concatenate(own) for own in blocks]


def test_audio_does_not_depend_on_the_batch(bf16: MusicGen) -> None:
    requests = [GenerationParameters("calm piano", (60 + 40 * index) * HOP + index, seed=index) for index in range(6)]
    expected = []
    for parameters in requests:
        state = bf16.prefill(parameters)
        expected += run(bf16, [state])
        bf16.release(state)
    states = [bf16.prefill(parameters) for parameters in requests]
    for samples, reference in zip(run(bf16, states), expected, strict=True):
        assert len(samples) == len(reference)
        np.testing.assert_allclose(samples, reference, atol=1e-3)
    for state in states:
        bf16.release(state)


def test_audio_equals_the_one_shot_decode_in_fp32(bf16: MusicGen, wide: Path) -> None:
    state = bf16.prefill(GenerationParameters("calm piano", 150 * HOP, seed=3))
    samples = run(bf16, [state])[0][:, 0]
    codes = torch.from_numpy(state.codes.select_frames(0, 150))
    bf16.release(state)
    reference = load_encodec(wide).decode(codes, channels=1)[: 150 * HOP, 0]
    noise = np.square(samples.astype(np.float64) - reference).sum()
    assert 10 * np.log10(np.square(reference.astype(np.float64)).sum() / noise) >= MIN_SNR_DB


def test_clip_is_encoded_as_on_the_cpu(fp32: MusicGen, wide: Path) -> None:
    clip = golden_clip(1, 40 * HOP)
    state = fp32.prefill(GenerationParameters("calm piano", 20 * HOP, seed=1, prompt_audio=clip))
    exact = load_encodec(wide).encode(clip).numpy()
    assert (state.codes.select_frames(0, 40) == exact).mean() > 0.95, "ties may be broken differently"
    assert len(run(fp32, [state])[0]) == 20 * HOP
    fp32.release(state)


def test_unloaded_model_releases_its_memory(wide: Path, t5: None) -> None:
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    model = load(wide)
    state = model.prefill(GenerationParameters("calm piano", 20 * HOP, seed=1))
    run(model, [state])
    model.release(state)
    pool_bytes, reference = model.memory.limit_bytes, weakref.ref(model)
    assert torch.cuda.memory_reserved() >= before + pool_bytes
    del model, state
    gc.collect()
    assert reference() is None, "something keeps the model alive"
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() < before + pool_bytes // 4


def test_out_of_memory_fails_only_the_request_that_needed_it(
    bf16: MusicGen, limit_memory: Callable[[], list[Tensor]]
) -> None:
    parameters = GenerationParameters("calm", 60 * HOP, seed=3)
    before = bf16.prefill(parameters)
    expected = run(bf16, [before])[0]
    bf16.release(before)
    bystander = bf16.prefill(parameters)
    blocks: list[Any] = [bf16.step([bystander])[0] for _ in range(20)]
    reserved = bf16.memory.reserved_bytes
    filler = limit_memory()
    with pytest.raises(torch.OutOfMemoryError) as failed:
        bf16.prefill(GenerationParameters("a long prompt " * 30, 60 * HOP, seed=1))
    filler.clear()
    assert is_out_of_memory(failed.value)
    assert not is_fatal(failed.value)
    assert bf16.memory.reserved_bytes == reserved, "the request's pages have been released"
    while sum(map(len, blocks)) < bystander.frames:
        blocks += bf16.step([bystander])
    np.testing.assert_allclose(np.concatenate(blocks), expected, atol=1e-3)
    bf16.release(bystander)


def test_full_batch_of_long_requests_fits_and_short_ones_take_less(bf16: MusicGen) -> None:
    short = bf16.prefill(GenerationParameters("calm", 50 * HOP, seed=0))
    of_short = bf16.memory.reserved_bytes
    long = bf16.prefill(GenerationParameters("calm", 1500 * HOP, seed=0))
    of_long = bf16.memory.reserved_bytes - of_short
    bf16.release(short)
    bf16.release(long)
    assert of_short * 8 < of_long
    assert 2 * of_long <= bf16.memory.limit_bytes
