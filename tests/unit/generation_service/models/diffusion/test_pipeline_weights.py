"""Headers of weights that are missing, truncated, pickled or elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dgx_music.errors import FailedPrecondition
from generation_service.models.diffusion.pipeline_weights import WEIGHT_FILES, read_weights

FILE = "diffusion_pytorch_model.safetensors"


def split(folder: Path) -> Path:
    """Writes the weights as two parts with an index, which is returned."""
    tensors = load_file(folder / FILE)
    (folder / FILE).unlink()
    parts = {"one.safetensors": list(tensors)[:5], "two.safetensors": list(tensors)[5:]}
    for file, names in parts.items():
        save_file({name: tensors[name] for name in names}, folder / file)
    index = folder / f"{FILE}.index.json"
    index.write_text(json.dumps({"weight_map": {name: file for file, names in parts.items() for name in names}}))
    return index


def test_one_file_and_several_hold_the_same(broken: Path) -> None:
    whole = read_weights(broken / "vae", "diffusers")
    split(broken / "vae")
    parts = read_weights(broken / "vae", "diffusers")
    assert parts.shapes == whole.shapes
    assert parts.elements == whole.elements == sum(tensor.numel() for tensor in load_all(broken / "vae"))


def test_digest_covers_every_part(broken: Path) -> None:
    split(broken / "vae")
    digests = {read_weights(broken / "vae", "diffusers").digest}
    for part in ("one.safetensors", "two.safetensors"):
        path = broken / "vae" / part
        save_file({name: tensor + 1 for name, tensor in load_file(path).items()}, path)
        digests.add(read_weights(broken / "vae", "diffusers").digest)
    assert len(digests) == 3


def load_all(folder: Path) -> list[torch.Tensor]:
    return [tensor for path in folder.glob("*.safetensors") for tensor in load_file(path).values()]


def test_a_truncated_file_is_refused(broken: Path) -> None:
    path = broken / "vae" / FILE
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FailedPrecondition, match=f"{FILE}: can't be read as safetensors; the file is truncated"):
        read_weights(broken / "vae", "diffusers")


def test_a_pickle_is_not_read(broken: Path) -> None:
    (broken / "vae" / FILE).rename(broken / "vae" / "diffusion_pytorch_model.bin")
    with pytest.raises(FailedPrecondition, match=r"diffusion_pytorch_model\.bin is a pickle, which could run code"):
        read_weights(broken / "vae", "diffusers")


def test_an_index_can_not_reach_out_of_its_folder(broken: Path) -> None:
    index = split(broken / "vae")
    index.write_text(json.dumps({"weight_map": {"a": "../text_encoder/model.safetensors"}}))
    with pytest.raises(FailedPrecondition, match="which is not in its folder"):
        read_weights(broken / "vae", "diffusers")


def test_a_missing_part_is_named(broken: Path) -> None:
    split(broken / "vae")
    (broken / "vae" / "two.safetensors").unlink()
    with pytest.raises(FailedPrecondition, match=r"two\.safetensors"):
        read_weights(broken / "vae", "diffusers")


def test_a_part_without_a_tensor_of_the_index_is_named(broken: Path) -> None:
    index = split(broken / "vae")
    names = json.loads(index.read_text())["weight_map"]
    index.write_text(json.dumps({"weight_map": {**names, "more.weight": "two.safetensors"}}))
    with pytest.raises(FailedPrecondition, match=r"two\.safetensors: it has no more\.weight"):
        read_weights(broken / "vae", "diffusers")


@pytest.mark.parametrize("library", ["diffusers", "transformers"])
def test_of_both_layouts_the_one_is_checked_that_the_library_reads(tmp_path: Path, library: str) -> None:
    name = WEIGHT_FILES[library]
    save_file({"single": torch.zeros(1)}, tmp_path / name)
    save_file({"sharded": torch.zeros(1)}, tmp_path / "one.safetensors")
    (tmp_path / f"{name}.index.json").write_text(json.dumps({"weight_map": {"sharded": "one.safetensors"}}))
    expected = "sharded" if library == "diffusers" else "single"
    assert list(read_weights(tmp_path, library).shapes) == [expected]
