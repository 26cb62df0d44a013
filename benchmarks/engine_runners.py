"""The engines that `benchmarks.engine` compares. Each is set to a position and then runs steps."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch

from generation_service.models.base import GenerationParameters
from generation_service.models.musicgen.checkpoints.checkpoint import Checkpoint
from generation_service.models.musicgen.checkpoints.config import LmConfig
from generation_service.models.musicgen.delay_pattern import DelayedCodes
from generation_service.models.musicgen.device_sampling import sample_batch
from generation_service.models.musicgen.lm.cuda_graph import CudaGraphRunner
from generation_service.models.musicgen.lm.kv_cache import CFG_ROWS, KvCache, KvCachePool
from generation_service.models.musicgen.lm.language_model import LanguageModel
from generation_service.models.musicgen.lm.linear import Precision
from generation_service.models.musicgen.lm.static_kv_cache import StaticKvCachePool
from generation_service.models.musicgen.lm.static_language_model import StaticLanguageModel, run_eagerly
from generation_service.models.musicgen.sampling import Sampler

PROMPT_TOKENS = 12
MAX_STEPS = 8
"""Steps that a runner can run after a start."""
AUDIOCRAFT = "audiocraft"


class Runner(Protocol):
    """An engine that can be set to a position and then runs steps."""

    name: str

    def start(self, batch: int, position: int) -> Callable[[], object]:
        """Sets up a batch at a position. Returns a function that runs one step."""
        ...

    def stop(self) -> None:
        """Frees what the last start allocated."""
        ...


class NativeRunner:
    """Our engine's language model and sampling."""

    def __init__(self, name: str, lm: LanguageModel, memory: KvCachePool, bytes_per_weight: int) -> None:
        self.name, self.lm, self.memory, self.bytes_per_weight = name, lm, memory, bytes_per_weight
        self.caches: list[KvCache] = []

    def start(self, batch: int, position: int) -> Callable[[], object]:
        config, device = self.lm.config, self.lm.device
        self.caches = [self.memory.reserve(position + MAX_STEPS, PROMPT_TOKENS) for _ in range(batch)]
        past = torch.randn(2, CFG_ROWS, config.num_heads, position, config.head_dim, device=device)
        for cache in self.caches:
            for index in range(config.num_layers if position else 0):
                cache.append(index, *past)
            cache.position = position
            self.lm.condition(cache, torch.randn(PROMPT_TOKENS, config.dim))
        samplers = [Sampler(GenerationParameters("", 1, seed)) for seed in range(batch)]
        codes = torch.zeros(batch, config.n_q, dtype=torch.int64)
        return lambda: sample_batch(self.lm.step(codes, self.caches), samplers)

    def stop(self) -> None:
        for cache in self.caches:
            self.memory.release(cache)
        self.caches = []

    def greedy(self, text: torch.Tensor, frames: int) -> torch.Tensor:
        """text: [T, dim] → codes: int64 [K, frames]."""
        codes = DelayedCodes(self.lm.config.delays, frames, self.lm.config.card)
        cache = self.memory.reserve(codes.total_steps, len(text))
        self.lm.condition(cache, text)
        sampler = Sampler(GenerationParameters("", 1, 0, temperature=0))
        while not codes.is_done:
            codes.append(sample_batch(self.lm.step(codes.newest[None], [cache]), [sampler])[0])
        self.memory.release(cache)
        return codes.frames(0, frames)


class AudiocraftRunner:
    """audiocraft's language model and sampling."""

    name = AUDIOCRAFT

    def __init__(self, folder: Path, config: LmConfig, device: str) -> None:
        from audiocraft.models.loaders import load_lm_model

        self.config, self.device = config, device
        self.lm: Any = load_lm_model(str(folder), device=device)
        # audiocraft itself uses fp16 under autocast on CUDA.
        half = contextlib.nullcontext() if device == "cpu" else torch.autocast(device, torch.float16)
        self.precision: contextlib.AbstractContextManager[object] = half

    def start(self, batch: int, position: int) -> Callable[[], object]:
        config, lm, device = self.config, self.lm, self.device
        text = torch.randn(2 * batch, PROMPT_TOKENS, config.dim, device=device)
        text[batch:] = 0
        conditions = {"description": (text, torch.ones(2 * batch, PROMPT_TOKENS, device=device))}
        codes = torch.zeros(batch, config.n_q, 1, dtype=torch.int64, device=device)
        lm.reset_streaming()
        lm._set_streaming(True)

        def step() -> object:
            with torch.no_grad(), self.precision:
                return lm._sample_next_token(codes, conditions, {}, True, 1.0, 250, 0.0, cfg_coef=3.0)

        step()
        if position:
            like = lm.transformer.layers[0].self_attn._streaming_state["past_keys"]
            past = torch.randn(*like.shape[:2], position, like.shape[3], device=device).to(like.dtype)
            for layer in lm.transformer.layers:
                layer.self_attn._streaming_state.update(past_keys=past.clone(), past_values=past.clone())
            lm.transformer._streaming_state["offsets"] = torch.full((2 * batch,), position, device=device)
        return step

    def stop(self) -> None:
        self.lm.reset_streaming()

    def greedy(self, prompt: str, frames: int) -> torch.Tensor:
        from audiocraft.modules.conditioners import ConditioningAttributes

        self.lm._set_streaming(False)
        self.lm.reset_streaming()
        conditions = [ConditioningAttributes(text={"description": prompt})]
        codes: torch.Tensor = self.lm.generate(conditions=conditions, max_gen_len=frames, use_sampling=False)
        return codes[0]


def native_runners(checkpoint: Checkpoint, config: LmConfig, device: str, slots: int) -> list[NativeRunner]:
    """Builds the native engine in each precision of the device, for batches of up to `slots`."""
    if device == "cpu":
        widths: dict[Precision, int] = {"fp32": 4, "int8": 1}
        return [
            NativeRunner(f"native {name}", LanguageModel(checkpoint, config, name), KvCachePool(config, 1 << 40), width)
            for name, width in widths.items()
        ]
    kv = StaticKvCachePool(config, slots, 1503, dtype=torch.bfloat16, device=torch.device(device))
    runners = {"native bf16, graphs": CudaGraphRunner(), "native bf16, no graphs": run_eagerly}
    return [
        NativeRunner(name, StaticLanguageModel(checkpoint, config, "bf16", kv, runner), kv, 2)
        for name, runner in runners.items()
    ]
