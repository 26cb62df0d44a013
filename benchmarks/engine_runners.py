"""The engines that `benchmarks.engine` compares. Each is set to a position and then runs steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch

from benchmarks.engine_transformers import PROMPT_TOKENS
from generation_service.models.base import GenerationParameters
from generation_service.models.musicgen.checkpoints.checkpoint import Checkpoint
from generation_service.models.musicgen.checkpoints.config import LmConfig
from generation_service.models.musicgen.code_generator import Reservation
from generation_service.models.musicgen.conditions import WindowConditions
from generation_service.models.musicgen.delay_pattern import DelayedCodes
from generation_service.models.musicgen.lm.kv_cache import KvCache, KvCachePool
from generation_service.models.musicgen.lm.language_model import LanguageModel
from generation_service.models.musicgen.lm.linear import Precision
from generation_service.models.musicgen.sampling import CFG_ROWS, SamplingTensors, sample

MAX_STEPS = 8
"""Steps that a runner can run after a start."""
KV_BYTES = 16 << 30
"""More than the largest batch needs. Only what is written takes memory."""
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
        config = self.lm.config
        self.caches = [self.memory.reserve(Reservation(position + MAX_STEPS, PROMPT_TOKENS)) for _ in range(batch)]
        past = torch.randn(2, CFG_ROWS, position, config.num_heads, config.head_dim)
        for cache in self.caches:
            self.lm.begin_window(cache, WindowConditions.from_text(torch.randn(PROMPT_TOKENS, config.dim)))
            for index in range(config.num_layers if position else 0):
                cache.append(index, *past)
            cache.position = position
        parameters = [GenerationParameters("", 1, seed) for seed in range(batch)]
        codes = torch.zeros(batch, config.n_q, dtype=torch.int64)

        def step() -> object:
            logits = self.lm.step(codes, self.caches)
            tensors = SamplingTensors.from_parameters(parameters, config.card)
            counts = torch.tensor([cache.position for cache in self.caches])
            return sample(logits, tensors, counts, max_top_k=parameters[0].top_k, uses_top_p=False)

        return step

    def stop(self) -> None:
        for cache in self.caches:
            self.memory.release(cache)
        self.caches = []

    def greedy(self, text: torch.Tensor, frames: int) -> torch.Tensor:
        """text: [T, dim] → codes: int64 [K, frames]."""
        codes = DelayedCodes(self.lm.config.delays, frames, self.lm.config.card)
        cache = self.memory.reserve(Reservation(codes.total_steps, len(text)))
        self.lm.begin_window(cache, WindowConditions.from_text(text))
        parameters = SamplingTensors.from_parameters(
            [GenerationParameters("", 1, 0, temperature=0)], self.lm.config.card
        )
        while not codes.is_done:
            logits = self.lm.step(torch.from_numpy(codes.newest[None]), [cache])
            sampled = sample(logits, parameters, torch.tensor([codes.step]), max_top_k=1, uses_top_p=False)
            codes.append(sampled[0].numpy())
        self.memory.release(cache)
        return torch.from_numpy(codes.select_frames(0, frames))


class AudiocraftRunner:
    """audiocraft's language model and sampling."""

    name = AUDIOCRAFT

    def __init__(self, folder: Path, config: LmConfig) -> None:
        from audiocraft.models.loaders import load_lm_model

        self.config = config
        self.lm: Any = load_lm_model(str(folder), device="cpu")

    def start(self, batch: int, position: int) -> Callable[[], object]:
        config, lm = self.config, self.lm
        text = torch.randn(2 * batch, PROMPT_TOKENS, config.dim)
        text[batch:] = 0
        conditions = {"description": (text, torch.ones(2 * batch, PROMPT_TOKENS))}
        codes = torch.zeros(batch, config.n_q, 1, dtype=torch.int64)
        lm.reset_streaming()
        lm._set_streaming(True)

        def step() -> object:
            with torch.no_grad():
                return lm._sample_next_token(codes, conditions, {}, True, 1.0, 250, 0.0, cfg_coef=3.0)

        step()
        if position:
            like = lm.transformer.layers[0].self_attn._streaming_state["past_keys"]
            past = torch.randn(*like.shape[:2], position, like.shape[3])
            for layer in lm.transformer.layers:
                layer.self_attn._streaming_state.update(past_keys=past.clone(), past_values=past.clone())
            lm.transformer._streaming_state["offsets"] = torch.full((2 * batch,), position)
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


def native_runners(checkpoint: Checkpoint, config: LmConfig) -> list[NativeRunner]:
    """Builds the native engine for the CPU in each precision."""
    widths: dict[Precision, int] = {"fp32": 4, "int8": 1}
    return [
        NativeRunner(
            f"native {name}",
            LanguageModel(checkpoint, config, name),
            KvCachePool(config, KV_BYTES, is_quantized=name == "int8"),
            width,
        )
        for name, width in widths.items()
    ]
