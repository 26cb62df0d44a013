"""The models that `benchmarks/gpu.sh` measures: random weights in the real shapes, and the calls into the engine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from generation_service.models.base import GenerationParameters
from generation_service.models.musicgen.loader import find_musicgen, load_musicgen, load_resident
from generation_service.models.musicgen.model import MusicGen
from tests.support.checkpoints import SMALL, TINY, Shape, lm_config_dump, lm_weights, write_t5
from tests.support.compression_checkpoints import FULL_CODEC, TINY_CODEC, write_compression_checkpoint

MEDIUM = replace(SMALL, dim=1536, num_heads=24, num_layers=48)
LARGE = replace(SMALL, dim=2048, num_heads=32, num_layers=48)
SHAPES = {"small": SMALL, "medium": MEDIUM, "large": LARGE}
_CPU_KV_BYTES = 3 << 30
EXACT_LAYERS = 4
"""Layers of the model whose codes are compared: every matrix as in small, and few enough for the CPU."""


def write_models(folder: Path, *, is_tiny: bool) -> None:
    """Writes T5, and one checkpoint per shape, whose layers all have the same weights.

    In the file they share their memory, so that large takes 0.2 GB instead of 6.6. On the device each has its own.
    """
    write_t5(folder / "hf", TINY.t5_layers if is_tiny else SMALL.t5_layers)
    write_compression_checkpoint(folder, TINY_CODEC if is_tiny else FULL_CODEC, seed=0)
    shapes = {name: TINY if is_tiny else shape for name, shape in SHAPES.items()}
    shapes["exact"] = TINY if is_tiny else replace(SMALL, num_layers=EXACT_LAYERS)
    for name, shape in shapes.items():
        target = folder / name
        target.mkdir(parents=True, exist_ok=True)
        (target / "compression_state_dict.bin").unlink(missing_ok=True)
        (target / "compression_state_dict.bin").symlink_to(folder / "compression_state_dict.bin")
        _write_lm(target, shape, is_shared=name != "exact")


def _write_lm(folder: Path, shape: Shape, *, is_shared: bool) -> None:
    weights = lm_weights(replace(shape, num_layers=1) if is_shared else shape, 4, 0)
    if is_shared:
        weights = {name: tensor.half() for name, tensor in weights.items()}  # As in Meta's files.
        first = {name: tensor for name, tensor in weights.items() if ".layers.0." in name}
        for layer in range(1, shape.num_layers):
            weights |= {name.replace(".layers.0.", f".layers.{layer}."): tensor for name, tensor in first.items()}
    config = yaml.safe_dump(lm_config_dump(shape, stereo=False))
    torch.save(
        {"best_state": weights, "xp.cfg": config, "version": "1.3.0", "exported": True}, folder / "state_dict.bin"
    )


def load(
    folder: Path, device: str, precision: str, *, kv_precision: str = "auto", max_batch_size: int = 128
) -> tuple[MusicGen, float]:
    """The model as GPUs run it, also on the CPU; ready to run. And the seconds that loading took."""
    started_at = time.perf_counter()
    found: Any = find_musicgen(folder, device=device, precision=precision, kv_precision=kv_precision)  # type: ignore[arg-type]
    if device == "cuda":
        model = load_musicgen(found, max_batch_size=max_batch_size)
    else:
        model = load_resident(found, "cpu", kv_bytes=_CPU_KV_BYTES, max_batch_size=max_batch_size)
    return model, time.perf_counter() - started_at


def load_reference(folder: Path) -> MusicGen:
    """The model as the CPU runs it, in fp32."""
    return load_musicgen(find_musicgen(folder, device="cpu", precision="fp32"))


def describe_execution(model: MusicGen) -> dict[str, Any]:
    """How the model runs, as GetModel shows it."""
    from dataclasses import asdict

    execution = getattr(model, "execution", None)
    return {} if execution is None else asdict(execution())


def encode(model: MusicGen, prompt: str) -> Tensor | None:
    """The encoded prompt: [T, dim]."""
    return model._conditions.texts.encode(prompt)


@dataclass(slots=True)
class Run:
    """What `generate` saw."""

    audio_seconds: float = 0.0
    admission_seconds: float = 0.0
    """To prefill all requests, whose prompts were encoded before."""
    total_seconds: float = 0.0
    first_audio_seconds: float = 0.0
    """From the first admission until the slowest request had 100 ms of audio."""
    step_times: list[float] | None = None
    """Seconds of each call of `step`, in order."""

    @property
    def step_seconds(self) -> float:
        """The median over the steps in which all requests ran."""
        times = self.step_times or [float("nan")]
        return float(np.median(times[: max(1, len(times) - 10)]))

    def step_seconds_at(self, position: int, width: int = 40) -> float | None:
        """The median near a position; None if it was not reached."""
        times = (self.step_times or [])[max(0, position - width) : position + width]
        return float(np.median(times)) if len(times) >= width else None

    def summary(self) -> dict[str, float]:
        return {
            "audio_seconds_per_second": self.audio_seconds / self.total_seconds,
            "steps_per_second": 1 / self.step_seconds,
            "first_100_ms_seconds": self.first_audio_seconds,
            "admission_seconds": self.admission_seconds,
            "total_seconds": self.total_seconds,
        }


def generate(
    model: MusicGen, batch: int, seconds: float, *, others: Sequence[Any] = (), stop_after: float | None = None
) -> Run:
    """Runs a batch of equal requests, EnCodec included, until all audio is on the host, or for `stop_after` seconds.

    `others` are states that are stepped along, and are not counted.
    """
    rate = model.info.sample_rate_hz
    requests = [
        GenerationParameters(f"calm piano with number {index}", round(seconds * rate), seed=index)
        for index in range(batch)
    ]
    model.encode_prompts(requests)
    run = Run(step_times=[])
    started_at = now = time.perf_counter()
    states = [model.prefill(parameters) for parameters in requests]
    run.admission_seconds = time.perf_counter() - started_at
    received = [0] * batch
    active = list(range(batch))
    now = time.perf_counter()
    try:
        while active and (stop_after is None or now - started_at < stop_after):
            blocks = model.step([*(states[index] for index in active), *others])
            before, now = now, time.perf_counter()
            assert run.step_times is not None
            if len(active) == batch:
                run.step_times.append(now - before)
            for index, block in zip(active, blocks, strict=False):
                if isinstance(block, Exception):
                    raise block
                received[index] += len(block)
            if not run.first_audio_seconds and min(received) >= rate // 10:
                run.first_audio_seconds = now - started_at
            active = [index for index in active if received[index] < states[index].frames]
    finally:
        for state in states:
            model.release(state)
    run.total_seconds = now - started_at
    run.audio_seconds = sum(received) / rate
    return run
