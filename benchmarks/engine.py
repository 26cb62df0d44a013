"""Compares the native engine on the CPU with audiocraft and transformers: `make bench-engine`. `gpu.sh` is for GPUs.

    python -m benchmarks.engine [--rounds 3] [--positions 0,250] [--batches 1,2] [--folder FOLDER]

Writes a checkpoint of musicgen-small's shape with random weights (1.9 GB; kept in FOLDER if given), from which all
engines read, and prints Markdown, ratios first. The engines take turns; one that is not installed is skipped. A step is
everything that the next code of every codebook needs: the language model with classifier-free guidance, and sampling,
but not the decoder. A position is set up with random keys and values, which do not affect the speed of a step.
transformers' step is the forward pass of its `MusicgenForCausalLM` in fp32 with the checkpoint's weights, and guidance
and sampling as in its `generate`. Memory bandwidth is measured right before and right after each turn, because on a
shared host it varies from second to second. A turn's upper bound is given by reading the model's weights at the mean of
the two.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from tests.support.checkpoints import SMALL, write_checkpoint, write_t5

POSITIONS = "0,250,500,1000,1480"
BATCHES = "1,2,4,8,16,32"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--positions", default=POSITIONS)
    parser.add_argument("--batches", default=BATCHES)
    parser.add_argument(
        "--batch-position", type=int, default=100, help="position at which the batches are measured (default: 100)"
    )
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.folder or Path(temporary)).resolve()
        # The modules imported below read these variables when they are imported.
        os.environ["HF_HOME"], os.environ["HF_HUB_OFFLINE"] = str(folder / "hf"), "1"
        if not (folder / "compression_state_dict.bin").exists():
            write_t5(folder / "hf", SMALL.t5_layers)
            write_checkpoint(folder, "small")
        from benchmarks import engine_report

        if arguments.memory_of:
            engine_report.peak_memory(arguments.memory_of, folder)
            return
        engine_report.run(
            folder,
            positions=[int(position) for position in arguments.positions.split(",")],
            batches=[int(batch) for batch in arguments.batches.split(",")],
            batch_position=arguments.batch_position,
            rounds=arguments.rounds,
        )


if __name__ == "__main__":
    main()
