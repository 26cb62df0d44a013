"""Stages of `benchmarks/gpu.sh` that compare: with the CPU and with transformers, for correctness and for speed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from benchmarks.engine_transformers import TransformersRunner
from benchmarks.gpu import Options, emit
from benchmarks.gpu_models import encode, generate, load, load_reference
from generation_service.models.base import GenerationParameters
from generation_service.models.musicgen.checkpoints.checkpoint_reader import read_checkpoint
from generation_service.models.musicgen.checkpoints.config import parse_lm_config
from generation_service.models.musicgen.conditions import Branch, Condition, WindowConditions
from generation_service.models.musicgen.delay_pattern import Codes
from generation_service.models.musicgen.model import MusicGen
from tests.support.generated_codes import CodeRequest, generate_codes

PROMPTS = ("a calm piano", "fast drums and a long bass line with a choir", "lofi")
PREFIX_POSITIONS = 200
"""More than one piece of a prefill."""
COMPARED_FRAMES, TINY_FRAMES = 120, 30
MIN_BF16_AGREEMENT = 0.8
"""With random weights the two best codes are often close, so bf16 may choose another: with a wrong kernel, 1 in 2,048
would agree."""
TRANSFORMERS_POSITIONS = (50, 500, 1000)
TRANSFORMERS_STEPS = 20


def greedy_codes(model: MusicGen, prompts: Sequence[str], frames: int, *, prefix: Codes | None = None) -> list[Codes]:
    """The codes of a batch of requests, decoded greedily: [K, frames] each. prefix: [K, n], codes that are known."""
    requests = [
        CodeRequest(
            GenerationParameters(prompt, frames, seed=0, temperature=0.0),
            WindowConditions.from_text(encode(model, prompt)),
            frames,
            known=prefix,
        )
        for prompt in prompts
    ]
    return generate_codes(model._generator, requests)


def exact(options: Options) -> None:
    """Greedy codes in fp32 equal those of the CPU and of transformers, alone and in a batch; bf16 agrees mostly."""
    frames = TINY_FRAMES if options.is_tiny else COMPARED_FRAMES
    folder = options.folder / "exact"
    if options.device == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = False
    reference = load_reference(folder)
    expected = greedy_codes(reference, PROMPTS[:2], frames)
    text = encode(reference, PROMPTS[0])
    assert text is not None
    model, _ = load(folder, options.device, "fp32", max_batch_size=8)
    wrong = []
    for name, compute in {
        "fp32 alone, of the CPU's": lambda: greedy_codes(model, PROMPTS[:1], frames),
        "fp32 in a batch, of the CPU's": lambda: greedy_codes(model, PROMPTS[:2], frames),
        "fp32 in another batch, of the CPU's": lambda: greedy_codes(model, [*PROMPTS[:2], *PROMPTS], frames)[:2],
    }.items():
        wrong += _compare(name, compute(), expected)
    checkpoint = read_checkpoint(folder / "state_dict.bin")
    runner = TransformersRunner(checkpoint, parse_lm_config(checkpoint), options.device)
    wrong += _compare("fp32 alone, of transformers'", expected[:1], [runner.greedy(text, frames)])
    del model, runner
    if options.device == "cuda":
        model, _ = load(folder, "cuda", "bf16", max_batch_size=8)
        agreement = _next_code_agreement(model, expected[0], frames)
        emit("bf16, next code as in fp32", agreement)
        if agreement < MIN_BF16_AGREEMENT:
            wrong.append(f"bf16 agrees in {agreement:.0%} of the codes")
    if wrong:
        raise AssertionError("; ".join(wrong))


def conditions(options: Options) -> None:
    """Greedy codes in fp32 of requests with negative texts, several texts and prefixes equal those of the CPU, in a
    batch that they join one after another."""
    frames = TINY_FRAMES if options.is_tiny else COMPARED_FRAMES
    reference = load_reference(options.folder / "exact")
    dim = reference._generator.config.dim
    texts = [Condition(encode(reference, prompt)) for prompt in PROMPTS]
    prefixed = [replace(text, prefix=_draw_prefix(seed, dim)) for seed, text in enumerate(texts)]
    cases = {
        "plain": WindowConditions((Branch(texts[0]),)),
        "negative text": WindowConditions((Branch(texts[0]),), texts[1]),
        "two texts": WindowConditions((Branch(texts[0], 0.7, 0.7), Branch(texts[1], 0.3, 0.3))),
        "from one text to another": WindowConditions(
            (Branch(texts[0], 1.0, 0.0), Branch(texts[1], 0.0, 1.0)), texts[2]
        ),
        "prefix": WindowConditions((Branch(prefixed[0]),)),
        "four branches": WindowConditions(
            (*(Branch(each, 2.0, 1.0) for each in prefixed), Branch(Condition(prefix=prefixed[1].prefix), -5.0, -2.0))
        ),
    }
    greedy = GenerationParameters("", frames, seed=0, temperature=0.0)
    requests = [CodeRequest(greedy, each, frames, joins_at=5 * index) for index, each in enumerate(cases.values())]
    expected = generate_codes(reference._generator, requests)
    if options.device == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = False
    model, _ = load(options.folder / "exact", options.device, "fp32", max_batch_size=16)
    started_at = time.perf_counter()
    actual = generate_codes(model._generator, requests)
    emit("seconds of the first run, with captures", time.perf_counter() - started_at)
    wrong = []
    for name, own, want in zip(cases, actual, expected, strict=True):
        wrong += _compare(f"{name}, of the CPU's", [own], [want])
    if wrong:
        raise AssertionError("; ".join(wrong))


def _draw_prefix(seed: int, dim: int) -> Tensor:
    return torch.randn(PREFIX_POSITIONS, dim, generator=torch.Generator().manual_seed(seed))


def _compare(name: str, actual: Sequence[Codes], expected: Sequence[Codes]) -> list[str]:
    """Emits how many codes are equal. The result is empty if all are."""
    pairs = list(zip(actual, expected, strict=False))
    equal, total = sum(int((a == e).sum()) for a, e in pairs), sum(a.size for a, _ in pairs)
    emit(name, f"{equal} of {total}")
    return [] if equal == total else [f"{name}: {equal} of {total} codes are equal"]


def _next_code_agreement(model: MusicGen, codes: Codes, frames: int) -> float:
    """The share of equal codes in the frame that follows each of several prefixes of the same codes."""
    equal = []
    for known in range(4, frames - 4, 4):
        following = greedy_codes(model, PROMPTS[:1], known + 1, prefix=np.ascontiguousarray(codes[:, :known]))[0]
        # Only codebook 0 of the next frame depends on known codes alone.
        equal.append(following[0, known] == codes[0, known])
    return float(np.mean(equal))


def against_transformers(options: Options) -> None:
    """transformers' MusicGen and ours, on the same device in the same run, at batch 1."""
    folder = options.folder / "small"
    checkpoint = read_checkpoint(folder / "state_dict.bin")
    runner = TransformersRunner(checkpoint, parse_lm_config(checkpoint), options.device)
    precisions = {"fp32": torch.float32} | ({"fp16": torch.float16} if options.device == "cuda" else {})
    fastest = 0.0
    for name, dtype in precisions.items():
        runner.lm = runner.lm.to(dtype)
        figures = {}
        for position in (0, 10) if options.is_tiny else TRANSFORMERS_POSITIONS:
            step = runner.start(1, position)
            figures[str(position)] = 1 / _time(step, options)
            runner.stop()
        emit(f"transformers {name}, steps/s at position", figures)
        fastest = max(fastest, *figures.values())
    del runner
    model, _ = load(folder, options.device, "fp32" if options.device == "cpu" else "bf16", max_batch_size=4)
    generate(model, 1, 0.5)
    ours = 1 / generate(model, 1, 1 if options.is_tiny else 10).step_seconds
    emit("ours, steps/s", ours)
    emit("ours / the fastest of transformers", ours / fastest)


def _time(step: Callable[[], Tensor | object], options: Options) -> float:
    """Seconds per step, of several in a row."""
    for _ in range(3):
        step()
    _synchronize(options)
    started_at, steps = time.perf_counter(), 3 if options.is_tiny else TRANSFORMERS_STEPS
    for _ in range(steps):
        step()
    _synchronize(options)
    return (time.perf_counter() - started_at) / steps


def _synchronize(options: Options) -> None:
    if options.device == "cuda":
        torch.cuda.synchronize()
