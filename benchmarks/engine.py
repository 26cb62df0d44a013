"""The native engine against audiocraft: the same weights, the same machine, one run, taking turns.

    python -m benchmarks.engine [--rounds 3] [--batches 1,2,4,8,16] [--folder FOLDER]

Writes a checkpoint of musicgen-small's shape with random weights (1.7 GB, kept in FOLDER where one is named) and prints
Markdown. A step is all that one more code of every codebook takes: the language model with guidance, and sampling.
The decoder is not in it. Positions are set up with random keys and values; how fast a step is does not depend on them.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import torch

from generation_service.model import GenerationParameters
from generation_service.musicgen.checkpoint import Checkpoint, read_checkpoint
from generation_service.musicgen.config import LmConfig, lm_config
from generation_service.musicgen.delay import DelayedCodes
from generation_service.musicgen.kv_cache import KvCache
from generation_service.musicgen.linear import Precision
from generation_service.musicgen.lm import LanguageModel
from generation_service.musicgen.sampling import Sampler
from tests.checkpoints import SHAPES, write_lm, write_t5

POSITIONS = (0, 250, 500, 1000, 1480)
FRAME_RATE_HZ = 50
PROMPT_TOKENS = 12
STEPS_A_TURN = 6
CHECKED_FRAMES = 24


class Runner(Protocol):
    """Something that can be set to a position and then steps."""

    name: str

    def start(self, batch: int, position: int) -> Callable[[], object]:
        """Set up; what is returned makes one step."""
        ...


class Native:
    def __init__(self, checkpoint: Checkpoint, config: LmConfig, precision: Precision) -> None:
        self.name = f"native {precision}"
        self.config = config
        self.lm = LanguageModel(checkpoint, config, precision)

    def start(self, batch: int, position: int) -> Callable[[], object]:
        config = self.config
        caches = []
        for _ in range(batch):
            cache = KvCache(config, position + 200)
            for layer in cache.layers:
                layer[..., :position, :].normal_()
            cache.position = position
            self.lm.condition(cache, torch.randn(PROMPT_TOKENS, config.dim))
            caches.append(cache)
        samplers = [Sampler(GenerationParameters("", 1, seed)) for seed in range(batch)]
        codes = torch.zeros(batch, config.n_q, dtype=torch.int64)

        def step() -> object:
            logits = self.lm.step(codes, caches)
            return [sampler.draw(own) for sampler, own in zip(samplers, logits, strict=True)]

        return step

    def greedy(self, text: torch.Tensor, frames: int) -> torch.Tensor:
        codes = DelayedCodes(self.config.delays, frames, self.config.card)
        cache = KvCache(self.config, codes.steps)
        self.lm.condition(cache, text)
        sampler = Sampler(GenerationParameters("", 1, 0, temperature=0))
        while not codes.is_done:
            codes.add(sampler.draw(self.lm.step(codes.last[None], [cache])[0]))
        return codes.frames(0, frames)


class Audiocraft:
    name = "audiocraft fp32"

    def __init__(self, folder: Path, config: LmConfig) -> None:
        from audiocraft.models.loaders import load_lm_model

        self.config = config
        self.lm: Any = load_lm_model(str(folder))

    def start(self, batch: int, position: int) -> Callable[[], object]:
        config, lm = self.config, self.lm
        text = torch.cat([torch.randn(batch, PROMPT_TOKENS, config.dim), torch.zeros(batch, PROMPT_TOKENS, config.dim)])
        conditions = {"description": (text, torch.ones(2 * batch, PROMPT_TOKENS))}
        codes = torch.zeros(batch, config.n_q, 1, dtype=torch.int64)
        lm.reset_streaming()
        lm._set_streaming(True)

        def step() -> object:
            with torch.no_grad():
                return lm._sample_next_token(codes, conditions, {}, True, 1.0, 250, 0.0, cfg_coef=3.0)

        step()
        if position:
            shape = (2 * batch, config.num_heads, position, config.head_dim)
            for layer in lm.transformer.layers:
                layer.self_attn._streaming_state.update(past_keys=torch.randn(shape), past_values=torch.randn(shape))
            lm.transformer._streaming_state["offsets"] = torch.full((2 * batch,), position)
        return step

    def greedy(self, prompt: str, frames: int) -> torch.Tensor:
        from audiocraft.modules.conditioners import ConditioningAttributes

        self.lm._set_streaming(False)
        self.lm.reset_streaming()
        conditions = [ConditioningAttributes(text={"description": prompt})]
        codes: torch.Tensor = self.lm.generate(conditions=conditions, max_gen_len=frames, use_sampling=False)
        return codes[0]


def seconds_a_step(runners: Iterable[Runner], batch: int, position: int, rounds: int) -> dict[str, float]:
    """The fastest quarter of all steps of all turns takes at most this. What else the machine does can only slow a step
    down, and the runners take turns, so that it hits all alike."""
    times: dict[str, list[float]] = {runner.name: [] for runner in runners}
    for _ in range(rounds):
        for runner in runners:
            step = runner.start(batch, position)
            step()
            for _ in range(STEPS_A_TURN):
                began = time.perf_counter()
                step()
                times[runner.name].append(time.perf_counter() - began)
    return {name: statistics.quantiles(values, n=4)[0] for name, values in times.items()}


def read_bandwidth() -> float:
    """Bytes a second of reading 1 GB, the best of ten."""
    data = torch.ones(250_000_000)
    best = float("inf")
    for _ in range(10):
        began = time.perf_counter()
        data.sum()
        best = min(best, time.perf_counter() - began)
    return data.nbytes / best


def weights_a_step(config: LmConfig) -> int:
    """Weights that a step multiplies by: not the embeddings, nor the cross keys and values of the native engine."""
    dim, hidden = config.dim, config.hidden_dim
    return config.num_layers * (4 * dim * dim + 2 * dim * dim + 2 * dim * hidden) + config.n_q * config.card * dim


def table(title: str, columns: list[str], rows: dict[str, list[str]]) -> None:
    print(f"\n| {title} | {' | '.join(columns)} |\n| --- |{' --- |' * len(columns)}")
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(cells)} |")
    print(flush=True)


def report(
    title: str, columns: list[str], results: list[dict[str, float]], scale: Callable[[int, float], float]
) -> None:
    """One row of figures for each engine, and one of ratios to audiocraft."""
    names = list(results[0])
    rows = {name: [f"{scale(i, result[name]):.2f}" for i, result in enumerate(results)] for name in names}
    if Audiocraft.name in names:
        for name in names[1:]:
            rows[f"{name} / audiocraft"] = [f"**{result[Audiocraft.name] / result[name]:.2f}x**" for result in results]
    table(title, columns, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--positions", default=",".join(map(str, POSITIONS)))
    parser.add_argument("--batches", default="1,2,4,8,16")
    parser.add_argument("--batch-position", type=int, default=100, help="where the batches are measured")
    parser.add_argument("--without-audiocraft", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        run(arguments, arguments.folder or Path(temporary))


def run(arguments: argparse.Namespace, folder: Path) -> None:
    torch.manual_seed(0)
    shape = SHAPES["small"]
    os.environ["HF_HOME"], os.environ["HF_HUB_OFFLINE"] = str(folder / "hf"), "1"
    if not (folder / "state_dict.bin").exists():
        write_lm(folder, shape)
        write_t5(folder / "hf")
    checkpoint = read_checkpoint(folder / "state_dict.bin")
    config = lm_config(checkpoint)
    native = [Native(checkpoint, config, "fp32"), Native(checkpoint, config, "int8")]
    runners: list[Runner] = [*native]
    print(f"{platform.processor() or platform.machine()}, {_cpu_name()}, {torch.get_num_threads()} threads, ", end="")
    print(f"torch {torch.__version__}; shape small, fp32 weights {weights_a_step(config) * 4 / 1e9:.2f} GB a step")
    if not arguments.without_audiocraft:
        from generation_service.musicgen.conditioner import TextConditioner

        reference = Audiocraft(folder, config)
        text = TextConditioner(checkpoint, config).encode("calm piano")
        assert text is not None
        same = reference.greedy("calm piano", CHECKED_FRAMES) == native[0].greedy(text, CHECKED_FRAMES)
        print(f"greedy fp32 codes equal to audiocraft's: {int(same.sum())} of {same.numel()}")
        runners.insert(0, reference)

    positions = [int(position) for position in arguments.positions.split(",")]
    batches = [int(batch) for batch in arguments.batches.split(",")]
    at_positions = [seconds_a_step(runners, 1, position, arguments.rounds) for position in positions]
    report("steps/s, batch 1, at position", [str(p) for p in positions], at_positions, lambda i, s: 1 / s)
    of_batches = [seconds_a_step(runners, batch, arguments.batch_position, arguments.rounds) for batch in batches]
    report("audio-s/s, batch", [str(b) for b in batches], of_batches, lambda i, s: batches[i] / s / FRAME_RATE_HZ)
    bandwidth = read_bandwidth()
    print(f"memory bandwidth {bandwidth / 1e9:.1f} GB/s;", end="")
    for name, width in (("native fp32", 4), ("native int8", 1)):
        bound = bandwidth / (weights_a_step(config) * width)
        print(f" {name}: bound {bound:.1f} steps/s, reached {1 / at_positions[0][name] / bound:.0%}", end=";")
    print()


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return "unknown CPU"


if __name__ == "__main__":
    main()
