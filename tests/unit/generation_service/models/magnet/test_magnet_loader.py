"""Finding and loading MAGNeT."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="MAGNeT needs torch")
pytest.importorskip("transformers", reason="the text encoder is transformers'")

from dgx_music.errors import FailedPrecondition
from generation_service.config import GenerationSettings
from generation_service.models.base import Capability, GenerationParameters
from generation_service.models.discovery import find_installed_models
from generation_service.models.magnet.magnet_loader import load_magnet
from generation_service.models.magnet.magnet_model import Magnet
from generation_service.models.musicgen.checkpoints.checkpoint import COMPRESSION_FILE
from generation_service.models.params import build_parameters
from tests.support.compression_checkpoints import CodecShape, write_compression_checkpoint
from tests.support.magnet_runs import find, run


def test_info_says_what_the_model_is_and_samples_with_by_default(folder: Path) -> None:
    info = find(folder).info
    is_sound = folder.name == "audio-magnet"
    assert (info.name, info.description) == (folder.name, "MAGNeT, 3 layers of 64, segments of 1 s.")
    assert (info.sample_rate_hz, info.channels, info.max_duration_seconds) == (16_000 if is_sound else 32_000, 1, 1)
    assert info.capabilities == {Capability.CONTINUATION, Capability.NEGATIVE_PROMPT}
    defaults = build_parameters(info, "x", 1, 7, {})
    expected = (3.5, 0, 0.8, 20) if is_sound else (3.0, 0, 0.9, 10)
    assert (defaults.temperature, defaults.top_k, defaults.top_p, defaults.guidance_scale) == expected
    chosen = build_parameters(info, "x", 1, 7, {"temperature": 1.5, "top_k": 10, "guidance_scale": 2})
    assert (chosen.temperature, chosen.top_k, chosen.top_p, chosen.guidance_scale) == (1.5, 10, expected[2], 2)


def test_it_is_found_among_the_installed_models(folder: Path, tmp_path: Path) -> None:
    settings = GenerationSettings(data_dir=tmp_path, model_folders=[folder], devices="cpu")  # type: ignore[arg-type]
    entry = find_installed_models(settings).get(folder.name)
    assert entry.describe() == find(folder).info
    assert isinstance(entry.load(), Magnet)


def test_int8_weights_generate_other_codes_of_another_version(folder: Path) -> None:
    found = find(folder, precision="int8")
    assert found.info.version != find(folder).info.version
    model = load_magnet(found)
    assert model.execution().precision == "int8"
    [(_, samples)] = run(model, [(GenerationParameters("lofi", found.info.sample_rate_hz // 2, seed=1), 0)])
    assert np.isfinite(samples).all()


def test_codec_of_another_rate_is_rejected(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    write_compression_checkpoint(tmp_path / "copy", CodecShape(4, (8, 5, 4, 4), 16, 64, sample_rate_hz=24_000))
    with pytest.raises(FailedPrecondition, match="at 24000 Hz, but the language model needs 4 of 64 at") as rejected:
        find(tmp_path / "copy")
    assert rejected.value.metadata == {"file": str(tmp_path / "copy" / COMPRESSION_FILE)}


def test_weights_of_another_shape_are_rejected_before_they_are_read(tmp_path: Path) -> None:
    from tests.support.sound_checkpoints import write_magnet

    write_magnet(tmp_path, change=lambda config: config["transformer_lm"].update(num_layers=4))
    with pytest.raises(FailedPrecondition, match=r"the weights have no transformer\.layers\.3\."):
        find(tmp_path)
