"""A checkpoint of audiocraft's training, and what audiocraft exports of it, both stored in `training/`.

    python -m tests.support.training_checkpoints

writes them again. It needs audiocraft (`make setup-audiocraft`), whose OmegaConf pickles the configuration and whose
`export_lm` exports the weights; the tests need neither.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from unittest import mock

import torch

from tests.support.checkpoints import Shape, lm_config_dump, lm_weights

FOLDER = Path(__file__).with_name("training")
TRAINING = FOLDER / "checkpoint.th"
EXPORTED = FOLDER / "state_dict.bin"
MICRO = Shape(dim=8, num_heads=2, num_layers=1, card=4, t5_layers=1)
CODEC = "facebook/encodec_32khz"


def main() -> None:
    from audiocraft.utils.export import export_lm
    from omegaconf import OmegaConf

    config = lm_config_dump(MICRO, stereo=False) | {"compression_model_checkpoint": f"//pretrained/{CODEC}"}
    weights = {name: weight.half() for name, weight in lm_weights(MICRO, 4, 0).items()}
    config = OmegaConf.create(config)
    OmegaConf.set_struct(config, True)
    # What flashy's solver and audiocraft's save.
    package = {
        "history": [{"train": {"ce": 3.2}, "valid": {"ce": 3.1}}],
        "xp.cfg": config,
        "xp.sig": "abcd1234",
        "best_state": {"model": weights},
        "fsdp_best_state": {},
        "ema": {},
        "model": {name: weight + 1 for name, weight in weights.items()},
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]},
        "lr_scheduler": {"last_epoch": 3},
    }
    FOLDER.mkdir(exist_ok=True)
    torch.save(package, TRAINING)
    with mock.patch.object(torch, "load", partial(torch.load, weights_only=False)):
        export_lm(TRAINING, EXPORTED)


if __name__ == "__main__":
    main()
