"""How long a model takes to load from each layout of its files.

    python -m benchmarks.loading [--shape small|tiny] [--turns N]

The model has random weights in fp16, as Meta's files, in musicgen-small's shape. The first turn, which imports
libraries, does not count, and the files are in the page cache. The layouts take turns; a ratio is that of two adjacent
turns.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from generation_service.models.musicgen.checkpoints.checkpoint import COMPRESSION_FILE, LM_FILE
from generation_service.models.musicgen.checkpoints.checkpoint_reader import read_checkpoint
from generation_service.models.musicgen.checkpoints.converted_checkpoint import StoredPrecision, write_converted

PICKLE, CONVERTED, CONVERTED_FP32 = "audiocraft's pickle", "converted, fp16", "converted, fp32"
LAYOUTS: dict[str, StoredPrecision | None] = {PICKLE: None, CONVERTED: "fp16", CONVERTED_FP32: "fp32"}


def unpickle(folder: Path) -> None:
    """As audiocraft and transformers read the files: into memory, before anything is built from them."""
    from transformers import T5EncoderModel

    tensors = [torch.load(folder / file, weights_only=True)["best_state"] for file in (LM_FILE, COMPRESSION_FILE)]
    network: Any = T5EncoderModel.from_pretrained("t5-base", local_files_only=True)
    tensors.append(network.state_dict())
    _touch(tensors)


def read_parts(folder: Path) -> None:
    """As this engine reads them: the language model layer by layer, each from a mapping of its own."""
    checkpoint = read_checkpoint(folder)
    parts: dict[str, list[str]] = {}
    for name in checkpoint.headers:
        parts.setdefault(".".join(name.split(".")[:3]) if name.startswith("transformer.") else "", []).append(name)
    for names in parts.values():
        tensors = checkpoint.map_tensors()
        _touch([{name: tensors[name] for name in names}])
    _touch([each.map_tensors() for each in (checkpoint.open_codec(), checkpoint.open_text_encoder())])


def _touch(networks: list[Mapping[str, torch.Tensor]]) -> None:
    step = os.sysconf("SC_PAGE_SIZE")
    for tensors in networks:
        for name in tensors:
            tensors[name].contiguous().reshape(-1).view(torch.uint8)[::step].sum()


def load(folder: Path) -> None:
    """A model that is ready for requests, on the CPU in fp32."""
    from generation_service.models.musicgen.loader import find_musicgen, load_musicgen

    load_musicgen(find_musicgen(folder))


MEASUREMENTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "all tensors by `torch.load` and `from_pretrained`, as audiocraft reads them": (unpickle, PICKLE),
    "all tensors layer by layer, audiocraft's pickle": (read_parts, PICKLE),
    "all tensors layer by layer, converted, fp16": (read_parts, CONVERTED),
    "ready for requests, audiocraft's pickle": (load, PICKLE),
    "ready for requests, converted, fp16": (load, CONVERTED),
    "ready for requests, converted, fp32": (load, CONVERTED_FP32),
}
"""What is measured → how, and on which layout."""
BASELINES: dict[Any, str] = {
    read_parts: "all tensors layer by layer, audiocraft's pickle",
    load: "ready for requests, audiocraft's pickle",
}


def measure(name: str, folder: Path) -> float:
    function, _ = MEASUREMENTS[name]
    began = time.perf_counter()
    function(folder)
    return time.perf_counter() - began


def write_models(root: Path, shape: str) -> dict[str, Path]:
    from tests.support.checkpoints import SHAPES, write_lm, write_t5
    from tests.support.compression_checkpoints import FULL_CODEC, TINY_CODEC, write_compression_checkpoint

    folders = {layout: root / str(index) for index, layout in enumerate(LAYOUTS)}
    write_lm(folders[PICKLE], SHAPES[shape], dtype=torch.float16)
    write_compression_checkpoint(folders[PICKLE], FULL_CODEC if shape == "small" else TINY_CODEC)
    write_t5(root / "hf", SHAPES[shape].t5_layers)
    for layout, precision in LAYOUTS.items():
        if layout != PICKLE:
            write_converted(read_checkpoint(folders[PICKLE]), folders[layout], precision, {})
    return folders


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=("small", "tiny"), default="small")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.folder is not None:
        _compare(arguments.folder, arguments.shape, arguments.turns)
        return
    with tempfile.TemporaryDirectory(prefix="dgx-music-loading-") as root:
        # In a process of its own: libraries read where the cache is when they are imported.
        environment = os.environ | {"HF_HOME": f"{root}/hf", "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.loading", "--folder", root, *sys.argv[1:]]
        subprocess.run(command, env=environment, check=True)


def _compare(root: Path, shape: str, turns: int) -> None:
    folders = write_models(root, shape)
    seconds: dict[str, list[float]] = {name: [] for name in MEASUREMENTS}
    for turn in range(1 + turns):
        for name, (_, layout) in MEASUREMENTS.items():
            taken = measure(name, folders[layout])
            if turn:
                seconds[name].append(taken)
    print("| what | median, s | as fast as audiocraft's pickle |\n| --- | --- | --- |")
    for name, values in seconds.items():
        baseline = seconds[BASELINES.get(MEASUREMENTS[name][0], name)]
        ratio = statistics.median(first / value for first, value in zip(baseline, values, strict=True))
        print(f"| {name} | {statistics.median(values):.2f} | {ratio:.1f}× |")


if __name__ == "__main__":
    main()
