"""The hyperparameters of the language model, read from a checkpoint's configuration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="MusicGen needs torch")

from dgx_music.errors import FailedPrecondition
from generation_service.models.musicgen.checkpoints.checkpoint import LM_FILE
from generation_service.models.musicgen.checkpoints.checkpoint_reader import read_checkpoint
from generation_service.models.musicgen.checkpoints.config import parse_lm_config
from tests.support.checkpoints import TINY, write_lm, write_lm_with_config


@pytest.mark.parametrize("stereo", [False, True])
def test_lm_config_is_read_from_xp_config(tmp_path: Path, stereo: bool) -> None:
    config = parse_lm_config(read_checkpoint(write_lm(tmp_path, TINY, stereo=stereo)))
    assert (config.dim, config.num_heads, config.num_layers, config.hidden_dim, config.card) == (64, 4, 3, 256, 64)
    assert config.delays == ((0, 0, 1, 1, 2, 2, 3, 3) if stereo else (0, 1, 2, 3))
    assert (config.channels, config.n_q) == ((2, 8) if stereo else (1, 4))
    assert (config.t5_name, config.sample_rate_hz, config.max_duration_seconds) == ("t5-base", 32000, 30)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda c: c.update(lm_model="transformer_lm_magnet"), "lm_model is 'transformer_lm_magnet'"),
        (lambda c: c.pop("transformer_lm"), r"transformer_lm\.norm_first is False"),
        (
            lambda c: c["transformer_lm"].pop("dim"),
            r"its configuration has no transformer_lm\.dim; expected a MusicGen language model",
        ),
        (lambda c: c["transformer_lm"].update(dim="wide"), "dim is 'wide'; expected an integer of at least 1"),
        (lambda c: c["transformer_lm"].update(num_heads=5), "not divisible by 2 and by the 5 heads"),
        (lambda c: c["transformer_lm"].update(bias_attn=True), "bias_attn is True; only False"),
        (lambda c: c["transformer_lm"].update(positional_embedding="rope"), "'rope'; only 'sin'"),
        (lambda c: c["transformer_lm"].update(hidden_scale=-1), "hidden_scale is -1"),
        (lambda c: c["fuser"].update(prepend=["self_wav"]), r"conditioners\.self_wav\.model"),
        (lambda c: c["fuser"].update(cross=[]), r"fuser\.cross is \[\]"),
        (lambda c: c["conditioners"]["description"].update(model="clap"), "is 'clap'; only 't5'"),
        (lambda c: c["codebooks_pattern"].update(modeling="parallel"), "'parallel'; only 'delay'"),
        (lambda c: c["codebooks_pattern"]["delay"].update(delays=[0, 1, 2]), "expected 4 ascending integers"),
        (lambda c: c["codebooks_pattern"]["delay"].update(delays=[0, 2, 1, 3]), "expected 4 ascending integers"),
        (lambda c: c["interleave_stereo_codebooks"].update(use=True, per_timestep=True), "per_timestep is True"),
    ],
)
def test_unsupported_setting_is_rejected(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], problem: str
) -> None:
    with pytest.raises(FailedPrecondition, match=problem) as rejected:
        parse_lm_config(read_checkpoint(write_lm_with_config(tmp_path, change)))
    assert rejected.value.metadata == {"file": str(tmp_path / LM_FILE)}
