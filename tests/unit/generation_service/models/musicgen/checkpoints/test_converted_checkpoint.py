# ruff: noqa: E402
"""The layout of our own holds what the model had that was converted, and refuses what is not its own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("transformers", reason="the text encoder is transformers'")

from dgx_music.errors import FailedPrecondition
from generation_service.models.musicgen.checkpoints.checkpoint_reader import read_checkpoint
from generation_service.models.musicgen.checkpoints.converted_checkpoint import converted_bytes, write_converted
from generation_service.models.musicgen.loader import find_musicgen, load_musicgen
from tests.support.musicgen_runs import greedy, run
from tests.support.transformers_checkpoints import write_transformers_checkpoint

FRAMES = 12


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that transformers saved."""
    return write_transformers_checkpoint(tmp_path_factory.mktemp("saved"))


@pytest.mark.parametrize("original", ["mono", "stereo", "melody", "saved"])
def test_converted_model_generates_the_same(
    original: str, tmp_path: Path, t5: None, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(original)
    write_converted(read_checkpoint(folder), tmp_path / "converted", None, {"model": original})
    samples = []
    for each in (folder, tmp_path / "converted"):
        [(_, audio)] = run(load_musicgen(find_musicgen(each)), [(greedy("calm piano", FRAMES), 0)])
        samples.append(audio)
    np.testing.assert_array_equal(*samples)
    assert not list(tmp_path.glob("*.part"))


def test_language_model_gets_the_precision_and_the_other_networks_keep_theirs(
    mono: Path, t5: None, tmp_path: Path
) -> None:
    original = read_checkpoint(mono)
    write_converted(original, tmp_path / "half", "fp16", {})
    half = read_checkpoint(tmp_path / "half")
    assert {header.dtype for header in half.headers.values()} == {torch.float16}
    assert torch.equal(half.map_tensors()["emb.0.weight"], original.map_tensors()["emb.0.weight"].half())
    for stored in (half.open_codec(), half.open_text_encoder()):
        assert {header.dtype for header in stored.headers.values()} == {torch.float32}
    file = tmp_path / "half" / "model.safetensors"
    assert 0 < file.stat().st_size - converted_bytes(original, "fp16") < 100_000, "the header is all that is added"
    assert half.digest != original.digest


def test_file_is_read_by_safetensors_own_reader(mono: Path, t5: None, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    write_converted(read_checkpoint(mono), tmp_path / "converted", "bf16", {})
    tensors = load_file(tmp_path / "converted" / "model.safetensors")
    expected = read_checkpoint(mono).map_tensors()
    assert torch.equal(tensors["lm.out_norm.weight"], expected["out_norm.weight"].bfloat16())


def test_interrupted_conversion_leaves_no_folder(mono: Path, tmp_path: Path, t5: None) -> None:
    checkpoint = read_checkpoint(mono)
    target = tmp_path / "converted"
    target.mkdir()
    (target / "notes.txt").write_text("a folder that can't be replaced")
    with pytest.raises(OSError, match="not empty"):
        write_converted(checkpoint, target, None, {})
    assert [path.name for path in tmp_path.iterdir()] == ["converted"]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"format_version": 2}, "format_version is 2, but this version of dgx-music reads 1; convert the model again"),
        ({"codec": None}, "has no codec"),
        ({"format": "other"}, r"its configuration has no model_type; expected the configuration of transformers"),
    ],
)
def test_other_configuration_is_rejected(
    changes: dict[str, object], problem: str, mono: Path, t5: None, tmp_path: Path
) -> None:
    write_converted(read_checkpoint(mono), tmp_path / "converted", None, {})
    file = tmp_path / "converted" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(FailedPrecondition, match=problem):
        read_checkpoint(tmp_path / "converted")
