"""The measurements of `benchmarks.engine` and the tables that it prints."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.engine_runners import AUDIOCRAFT, AudiocraftRunner, Runner, native_runners
from benchmarks.engine_transformers import TRANSFORMERS, TransformersRunner
from generation_service.models.base import GenerationParameters, ModelInfo
from generation_service.models.execution import ModelExecution
from generation_service.models.musicgen.checkpoints.checkpoint_reader import read_checkpoint
from generation_service.models.musicgen.checkpoints.config import LmConfig, parse_lm_config
from generation_service.models.musicgen.codec.chunk_decoder import ChunkDecoder
from generation_service.models.musicgen.codec.encodec_checkpoint import load_encodec
from generation_service.models.musicgen.conditioners.t5_conditioner import TextConditioner
from generation_service.models.musicgen.eager_code_generator import EagerCodeGenerator
from generation_service.models.musicgen.lm.huge_pages import collapse_to_huge_pages
from generation_service.models.musicgen.loader import find_musicgen, load_musicgen
from generation_service.models.musicgen.model import MusicGen

FRAME_RATE_HZ = 50
PROMPT = "a calm piano"
STEPS_PER_TURN = 5
COMPARED_FRAMES = 24
FIRST_AUDIO_SECONDS = 0.1

Turns = dict[str, list[float]]
"""One figure per turn, by runner. The turns of one round have the same index."""


class Bandwidth:
    """Measures memory bandwidth by summing 1 GB, which no cache holds, with the engines' threads and huge pages."""

    def __init__(self) -> None:
        self._data = torch.ones(250_000_000)
        collapse_to_huge_pages(self._data.data_ptr(), self._data.nbytes)

    def __call__(self, reads: int = 3) -> float:
        """Returns bytes per second, the best of `reads` reads."""
        best = float("inf")
        for _ in range(reads):
            started_at = time.perf_counter()
            self._data.sum()
            best = min(best, time.perf_counter() - started_at)
        return self._data.nbytes / best


def measure(
    runners: Sequence[Runner], batch: int, position: int, rounds: int, bandwidth: Bandwidth | None = None
) -> tuple[Turns, Turns]:
    """Returns the median seconds per step of each turn, and the memory bandwidth during it in bytes per second.

    The bandwidth is the mean of what `bandwidth` measures right before the turn's steps and right after them.
    """
    times: Turns = {runner.name: [] for runner in runners}
    bandwidths_by_runner: Turns = {runner.name: [] for runner in runners}
    for _ in range(rounds):
        for runner in runners:
            step = runner.start(batch, position)
            step()
            before = bandwidth() if bandwidth else 0.0
            turn = []
            for _ in range(STEPS_PER_TURN):
                started_at = time.perf_counter()
                step()
                turn.append(time.perf_counter() - started_at)
            times[runner.name].append(statistics.median(turn))
            if bandwidth:
                bandwidths_by_runner[runner.name].append((before + bandwidth()) / 2)
            runner.stop()
    return times, bandwidths_by_runner


def report(title: str, columns: list[int], results: list[Turns], scale: Callable[[int, float], float]) -> None:
    """Prints ratios, then medians. A ratio is that of two turns of one round, which other load affects alike."""
    bases = [base for base in (AUDIOCRAFT, TRANSFORMERS) if base in results[0]]
    names = list(results[0])
    print(f"\n| {title} | {' | '.join(map(str, columns))} |\n| --- |{' --- |' * len(columns)}")
    for base in bases or names[:1]:
        for name in names[names.index(base) + 1 :]:
            pairs = [zip(times[base], times[name], strict=True) for times in results]
            ratios = [statistics.median(base_seconds / seconds for base_seconds, seconds in pair) for pair in pairs]
            print(f"| {name} / {base} | {' | '.join(f'**{ratio:.2f}×**' for ratio in ratios)} |")
    for name in names:
        figures = [
            scale(column, statistics.median(times[name])) for column, times in zip(columns, results, strict=True)
        ]
        print(f"| {name} | {' | '.join(f'{figure:.2f}' for figure in figures)} |")
    print(flush=True)


def first_audio(models: dict[str, MusicGen], rounds: int) -> None:
    """Measures the time from a prompt to the first samples and to 100 ms of audio: text encoder, steps and decoder."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
    for turn in range(rounds + 1):
        for name, model in models.items():
            started_at = time.perf_counter()
            state = model.prefill(GenerationParameters(PROMPT, 10 * model.info.sample_rate_hz, seed=turn))
            marks = []
            for goal in (1, round(FIRST_AUDIO_SECONDS * model.info.sample_rate_hz)):
                while state.frames_delivered < goal:
                    model.step([state])
                marks.append(time.perf_counter() - started_at)
            model.release(state)
            if turn:  # The first round is a warm-up.
                times[name].append((marks[0], marks[1]))
    print("\n| time to first audio, s | first samples | 100 ms of them |\n| --- | --- | --- |")
    for name, marks_of in times.items():
        print(
            f"| {name} | {' | '.join(f'{statistics.median(column):.2f}' for column in zip(*marks_of, strict=True))} |"
        )
    print(flush=True)


def peak_memory(engine: str, folder: Path) -> None:
    """Loads a model, generates a second of audio and prints the peak memory in MiB."""
    model: Any
    if engine == TRANSFORMERS:
        _transformers_second(folder)
    else:
        if engine == AUDIOCRAFT:
            from generation_service.models.audiocraft import load_audiocraft

            model = load_audiocraft(folder, name=folder.name, device="cpu")
        else:
            precision: Any = engine.split()[1]
            model = load_musicgen(find_musicgen(folder, device="cpu", precision=precision))
        rate = model.info.sample_rate_hz
        state, frames = model.prefill(GenerationParameters(PROMPT, rate, seed=1)), 0
        while frames < rate:
            frames += len(model.step([state])[0])
    status = Path("/proc/self/status").read_text()
    print(int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) >> 10)


def _transformers_second(folder: Path) -> None:
    """Runs the steps of one second of audio. The decoder is not measured, so it is not loaded either."""
    checkpoint = read_checkpoint(folder / "state_dict.bin")
    config = parse_lm_config(checkpoint)
    text = TextConditioner(checkpoint, config).encode(PROMPT)
    assert text is not None
    TransformersRunner(checkpoint, config, "cpu").greedy(text, FRAME_RATE_HZ)


def weights_per_step(config: LmConfig) -> int:
    """Returns how many weights a step multiplies by, which bounds its speed.

    These are not the embeddings, nor the cross-attention's Wk and Wv, which are needed once per request.
    """
    dim, hidden = config.dim, config.hidden_dim
    return config.num_layers * (4 * dim * dim + 2 * dim * dim + 2 * dim * hidden) + config.n_q * config.card * dim


def run(folder: Path, *, positions: list[int], batches: list[int], batch_position: int, rounds: int) -> None:
    """Measures everything and prints it as it is measured."""
    torch.manual_seed(0)
    checkpoint = read_checkpoint(folder / "state_dict.bin")
    config = parse_lm_config(checkpoint)
    natives = native_runners(checkpoint, config)
    runners: list[Runner] = [*natives]
    conditioner = TextConditioner(checkpoint, config)
    print(f"{_cpu_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}; ", end="")
    print(f"load average {os.getloadavg()[0]:.1f} at the start; medians of {rounds} rounds")
    text = conditioner.encode(PROMPT)
    assert text is not None
    codes = natives[0].greedy(text, COMPARED_FRAMES)
    others: list[Runner] = []
    for name in (AUDIOCRAFT, TRANSFORMERS):
        try:
            other = (
                AudiocraftRunner(folder, config)
                if name == AUDIOCRAFT
                else TransformersRunner(checkpoint, config, "cpu")
            )
        except (ImportError, ValueError, RuntimeError) as error:
            print(f"{name} is skipped because it can't be loaded ({error})")
            continue
        others.append(other)
        greedy = other.greedy(PROMPT, COMPARED_FRAMES) if name == AUDIOCRAFT else other.greedy(text, COMPARED_FRAMES)
        same = torch.as_tensor(greedy) == codes
        print(f"greedy codes of {natives[0].name} that equal those of {name}: {int(same.sum())} of {same.numel()}")
    runners[:0] = others

    bandwidth = Bandwidth()
    at_positions, bandwidths_by_runner = zip(
        *(measure(runners, 1, position, rounds, bandwidth) for position in positions), strict=True
    )
    bandwidths = [read for turns in bandwidths_by_runner for reads in turns.values() for read in reads]
    del bandwidth
    report("steps/s, batch 1, at position", positions, list(at_positions), lambda _, seconds: 1 / seconds)
    of_batches = [measure(runners, batch, batch_position, rounds)[0] for batch in batches]
    title = f"audio-s/s from position {batch_position}, batch"
    report(title, batches, of_batches, lambda batch, seconds: batch / seconds / FRAME_RATE_HZ)
    info = ModelInfo("small", "", "", "", config.sample_rate_hz, 1, 30.0, is_synthesiser=False)
    codec = load_encodec(folder)
    models = {
        one.name: MusicGen(
            info,
            EagerCodeGenerator(one.lm, one.memory),
            conditioner,
            codec,
            ChunkDecoder(codec, 1, max_streams=1),
            ModelExecution("cpu", one.name.split()[1], one.name.split()[1], max_batch_size=1),
        )
        for one in natives
    }
    first_audio(models, rounds)
    print("| peak memory of a process that generates 1 s | MiB |\n| --- | --- |")
    for name in [one.name for one in runners]:
        command = [sys.executable, "-m", "benchmarks.engine", "--folder", str(folder)]
        engine = name
        result = subprocess.run([*command, "--memory-of", engine], check=True, capture_output=True, text=True)
        label = f"{engine}, without a decoder" if engine == TRANSFORMERS else engine
        print(f"| {label} | {result.stdout.split()[-1]} |")
    print(
        f"\nMemory bandwidth {min(bandwidths) / 1e9:.1f} to {max(bandwidths) / 1e9:.1f} GB/s around single turns.",
        end="",
    )
    for one in natives:
        size = weights_per_step(config) * one.bytes_per_weight
        reads, steps = bandwidths_by_runner[0][one.name], at_positions[0][one.name]
        bound = statistics.median(read / size for read in reads)
        reached = [size / read / seconds for read, seconds in zip(reads, steps, strict=True)]
        print(
            f" {one.name} is bounded by {bound:.1f} steps/s, and at position {positions[0]} reached "
            f"{statistics.median(reached):.0%} of the bound of its turns ({min(reached):.0%} to {max(reached):.0%}).",
            end="",
        )
    print(f" Load average {os.getloadavg()[0]:.1f} at the end.")


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.processor() or platform.machine()
