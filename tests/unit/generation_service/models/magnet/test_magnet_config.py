"""The hyperparameters of MAGNeT, read from a checkpoint's configuration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="MAGNeT needs torch")

from dgx_music.errors import FailedPrecondition
from generation_service.models.magnet.magnet_config import parse_magnet_config
from generation_service.models.musicgen.checkpoints.checkpoint_reader import read_checkpoint
from generation_service.models.musicgen.checkpoints.config import parse_lm_config
from tests.support.checkpoints import TINY, write_lm
from tests.support.sound_checkpoints import write_magnet


def test_settings_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    write_magnet(tmp_path, is_sound=True)
    config = parse_magnet_config(read_checkpoint(tmp_path))
    assert (config.lm.dim, config.lm.delays, config.lm.t5_name, config.lm.sample_rate_hz) == (
        64,
        (0, 0, 0, 0),
        "t5-large",
        16_000,
    )
    assert (config.subcodes_context, config.span_len, config.decoding_steps) == (5, 3, (6, 4, 3, 3))
    assert (config.temperature, config.top_p, config.max_guidance, config.min_guidance) == (3.5, 0.8, 20, 1)


def test_settings_that_are_missing_are_audiocrafts_defaults(tmp_path: Path) -> None:
    write_magnet(tmp_path, change=lambda config: config.pop("generate"))
    config = parse_magnet_config(read_checkpoint(tmp_path))
    assert (config.decoding_steps, config.total_steps) == ((20, 10, 10, 10), 50)
    assert (config.temperature, config.top_p, config.max_guidance, config.min_guidance) == (3, 0.9, 10, 1)


def test_context_of_all_frames(tmp_path: Path) -> None:
    write_magnet(tmp_path, change=lambda config: config["transformer_lm"].update(subcodes_context=-1))
    assert parse_magnet_config(read_checkpoint(tmp_path)).subcodes_context is None


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda c: c["transformer_lm"].update(causal=True), r"transformer_lm\.causal is True; only False"),
        (lambda c: c["transformer_lm"].update(subcodes_context=-2), "subcodes_context is -2; expected a number of"),
        (lambda c: c["codebooks_pattern"].update(modeling="delay"), "modeling is 'delay'; only 'parallel'"),
        (lambda c: c.pop("masking"), r"no masking\.span_len; expected a MAGNeT language model"),
        (lambda c: c["masking"].update(span_len=1), "span_len is 1; only spans of several frames"),
        (
            lambda c: c["generate"]["lm"].update(decoding_steps=[20]),
            r"decoding_steps is \[20\]; expected the iterations",
        ),
        (
            lambda c: c["generate"]["lm"].update(span_arrangement="stride1"),
            "arrangement is 'stride1'; only 'nonoverlap'",
        ),
        (lambda c: c["generate"]["lm"].update(span_scoring="mean"), r"span_scoring is 'mean'; only 'max'"),
        (lambda c: c["generate"]["lm"].update(temp=0), r"generate\.lm\.temp is 0; expected a number above 0"),
        (lambda c: c["generate"]["lm"].update(top_p=90), r"generate\.lm\.top_p is 90; expected a number from 0 to 1"),
    ],
)
def test_unsupported_setting_is_rejected(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], problem: str
) -> None:
    write_magnet(tmp_path, change=change)
    with pytest.raises(FailedPrecondition, match=problem):
        parse_magnet_config(read_checkpoint(tmp_path))


def test_another_kind_of_model_is_rejected(tmp_path: Path) -> None:
    write_lm(tmp_path / "musicgen", TINY)
    with pytest.raises(FailedPrecondition, match="lm_model is 'transformer_lm'; only 'transformer_lm_magnet'"):
        parse_magnet_config(read_checkpoint(tmp_path / "musicgen"))
    write_magnet(tmp_path / "magnet")
    with pytest.raises(FailedPrecondition, match="lm_model is 'transformer_lm_magnet'; only 'transformer_lm' is"):
        parse_lm_config(read_checkpoint(tmp_path / "magnet"))
