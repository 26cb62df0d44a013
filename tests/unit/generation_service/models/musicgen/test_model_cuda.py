# ruff: noqa: E402
"""What can only be seen on a GPU: captured graphs, bf16 on the device, cuDNN, and its memory running out."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("transformers", reason="the text encoder is transformers'")

from torch import Tensor

from generation_service.config import GenerationSettings
from generation_service.engine.model_cache import LoadedModels
from generation_service.models.base import FloatArray, GenerationParameters
from generation_service.models.device_errors import is_fatal, is_out_of_memory
from generation_service.models.discovery import installed_models
from generation_service.models.musicgen.checkpoints.audiocraft_file import read_checkpoint
from generation_service.models.musicgen.checkpoints.config import lm_config
from generation_service.models.musicgen.codec.encodec import StreamingDecoder
from generation_service.models.musicgen.codec.encodec_checkpoint import load_encodec
from generation_service.models.musicgen.lm.cuda_graph import CudaGraphs
from generation_service.models.musicgen.lm.static_kv_cache import StaticKv
from generation_service.models.musicgen.lm.static_language_model import StaticLanguageModel
from generation_service.models.musicgen.loader import find_musicgen, load_musicgen
from generation_service.models.musicgen.model import MusicGen, MusicGenState
from tests.support.golden_codes import clip as golden_clip

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU that torch can use"),
]

HOP = 640
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


@pytest.fixture
def model(mono: Path, t5: None) -> MusicGen:
    return load_musicgen(find_musicgen(mono, device="cuda"))


@pytest.fixture
def limit_memory() -> Iterator[Callable[[], list[Tensor]]]:
    """Call it, and torch has no byte left until what it returns is dropped."""

    def fill() -> list[Tensor]:
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(torch.cuda.memory_reserved() / torch.cuda.mem_get_info()[1])
        held: list[Tensor] = []
        for size in (1 << 26, 1 << 20, 1 << 9):  # What it holds and does not use.
            with contextlib.suppress(torch.OutOfMemoryError):
                while True:
                    held.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
        return held

    yield fill
    torch.cuda.set_per_process_memory_fraction(1.0)


def run(model: MusicGen, states: list[MusicGenState]) -> list[FloatArray]:
    """Steps all until each is done; what each made."""
    made: list[list[FloatArray]] = [[] for _ in states]
    for _ in range(2000):
        going = [i for i, state in enumerate(states) if sum(map(len, made[i])) < state.frames]
        if not going:
            break
        for i, block in zip(going, model.step([states[i] for i in going]), strict=True):
            made[i].append(block)
    return [np.concatenate(blocks) for blocks in made]


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 3e-2)])
def test_a_replayed_graph_gives_what_the_step_itself_gives(mono: Path, precision: str, tolerance: float) -> None:
    """And both what the CPU gives in fp32, within the precision; for requests of different ages."""
    checkpoint = read_checkpoint(mono / "state_dict.bin")
    config = lm_config(checkpoint)
    graphs = CudaGraphs()
    models = []
    for name, device, runner in (("fp32", "cpu", None), (precision, "cuda", None), (precision, "cuda", graphs)):
        memory = StaticKv(config, 4, 600, dtype=PRECISIONS[name], device=torch.device(device))
        arguments = (checkpoint, config, name, memory)
        lm = StaticLanguageModel(*arguments, runner) if runner else StaticLanguageModel(*arguments)
        models.append((lm, [memory.reserve(600, 5) for _ in range(3)]))
    generator = torch.Generator().manual_seed(1)
    texts = [torch.randn(5, config.dim, generator=generator), None, torch.randn(70, config.dim, generator=generator)]
    for lm, caches in models:
        for cache, text in zip(caches, texts, strict=True):
            lm.condition(cache, text)
    for now in range(300):  # Into the second length.
        first = 0 if now % 4 else 1
        codes = torch.randint(0, config.card, (3 - first, config.n_q), generator=generator)
        exact, eager, replayed = (lm.step(codes, caches[first:]).cpu() for lm, caches in models)
        assert (replayed - eager).norm() <= 1e-3 * eager.norm()
        assert (replayed - exact).norm() <= tolerance * exact.norm()
    assert 1 < len(graphs) <= 6, "two lengths"


def test_a_seed_makes_the_same_music_in_any_company_that_comes_and_goes(model: MusicGen) -> None:
    asked = [
        GenerationParameters("calm piano", 33 * HOP, seed=1),
        GenerationParameters("calm piano", 300 * HOP + 5, seed=2),
        GenerationParameters("fast drums and a very long description of them " * 3, 20 * HOP, seed=1),
        GenerationParameters("lofi", 41 * HOP, seed=4, top_p=0.9),
    ]
    alone = []
    for one in asked:
        state = model.prefill(one)
        alone.append(run(model, [state])[0])
        model.release(state)
    assert not np.array_equal(alone[0][: 20 * HOP], alone[1][: 20 * HOP]), "the seed matters"
    states: list[MusicGenState] = []
    made: list[list[FloatArray]] = [[] for _ in asked]
    for now in range(500):
        if now % 7 == 0 and len(states) < len(asked):
            states.append(model.prefill(asked[len(states)]))
        going = [i for i, state in enumerate(states) if sum(map(len, made[i])) < state.frames]
        if not going:
            break
        for i, block in zip(going, model.step([states[i] for i in going]), strict=True):
            made[i].append(block)
            if sum(map(len, made[i])) == states[i].frames:
                model.release(states[i])
    for samples, blocks in zip(alone, made, strict=True):
        np.testing.assert_allclose(np.concatenate(blocks), samples, atol=1e-3)
    assert model.memory.reserved_bytes == 0


def test_the_codec_streams_what_it_decodes_at_once_and_what_the_cpu_decodes(mono: Path) -> None:
    torch.backends.cudnn.allow_tf32 = False
    on_cpu, codec = load_encodec(mono), load_encodec(mono).to("cuda")
    config = codec.config
    generator = torch.Generator().manual_seed(1)
    codes = torch.randint(0, config.codebook_size, (config.codebooks, 120), generator=generator)
    whole = codec.decode(codes, 1)
    decoder = StreamingDecoder(codec, 1)
    pieces = [decoder.push(piece) for piece in codes.split(25, dim=1)]
    np.testing.assert_allclose(np.concatenate([*pieces, decoder.finish()]), whole, atol=1e-3)
    np.testing.assert_allclose(whole, on_cpu.decode(codes, 1), atol=1e-3)


def test_an_unloaded_model_gives_its_memory_back(mono: Path, t5: None) -> None:
    catalog = installed_models(GenerationSettings(model_folders=(mono,), device="cuda"))
    models = LoadedModels(catalog)
    loaded = models.get(catalog.get("mono").describe())
    state = loaded.prefill(GenerationParameters("calm piano", 20 * HOP, seed=1))
    run(loaded, [state])
    loaded.release(state)
    kept, reserved = loaded.memory.limit_bytes, torch.cuda.memory_reserved()
    gone = weakref.ref(loaded)
    del loaded, state
    models.forget("mono")
    assert gone() is None
    assert torch.cuda.memory_reserved() <= reserved - kept


def test_a_clip_is_continued_as_the_cpu_would_read_it(model: MusicGen, mono: Path) -> None:
    clip = golden_clip(1, 40 * HOP)
    state = model.prefill(GenerationParameters("calm piano", 20 * HOP, seed=1, prompt_audio=clip))
    exact = load_encodec(mono).encode(clip)
    agree = (state.codes.frames(0, 40) == exact).float().mean()
    assert agree > 0.95, "a tie may break otherwise"
    assert len(run(model, [state])[0]) == 20 * HOP
    model.release(state)


def test_memory_that_runs_out_fails_the_request_that_wanted_it(
    model: MusicGen, limit_memory: Callable[[], list[Tensor]]
) -> None:
    asked = GenerationParameters("calm", 60 * HOP, seed=3)
    before = model.prefill(asked)
    expected = run(model, [before])[0]
    model.release(before)
    bystander = model.prefill(asked)
    blocks = [model.step([bystander])[0] for _ in range(20)]
    reserved = model.memory.reserved_bytes
    held = limit_memory()
    with pytest.raises(torch.OutOfMemoryError) as failed:
        model.prefill(GenerationParameters("a long prompt " * 30, 60 * HOP, seed=1))
    held.clear()
    assert is_out_of_memory(failed.value)
    assert not is_fatal(failed.value)
    assert model.memory.reserved_bytes == reserved, "its KV cache is free again"
    while sum(map(len, blocks)) < bystander.frames:
        blocks += model.step([bystander])
    np.testing.assert_allclose(np.concatenate(blocks), expected, atol=1e-3)
