# ruff: noqa: E402
"""Reading headers and tensors of safetensors files, and refusing damaged ones in time."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("safetensors")

from safetensors.torch import save_file

from dgx_music.errors import FailedPrecondition
from generation_service.models.musicgen.checkpoints.safetensors_file import INDEX_FILE, WEIGHTS_FILE, read_safetensors

MAPS = Path("/proc/self/maps")
TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(5, dtype=torch.bfloat16)}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_file(TENSORS, tmp_path / WEIGHTS_FILE)
    return tmp_path / WEIGHTS_FILE


def test_headers_and_tensors_are_those_that_were_saved(file: Path) -> None:
    files = read_safetensors(file.parent)
    assert {name: (header.shape, header.dtype) for name, header in files.headers.items()} == {
        "a": ((2, 3), torch.float32),
        "b": ((5,), torch.bfloat16),
    }
    tensors = files.map_tensors()
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


@pytest.mark.skipif(not MAPS.exists(), reason="needs /proc/self/maps")
def test_file_is_mapped_while_its_tensors_are_in_use(file: Path) -> None:
    tensors = read_safetensors(file).map_tensors()
    assert str(file) not in MAPS.read_text()
    tensor = tensors["a"]
    assert str(file) in MAPS.read_text()
    del tensors, tensor
    assert str(file) not in MAPS.read_text()


def test_digest_changes_with_a_tensor_and_not_with_the_place(file: Path, tmp_path: Path) -> None:
    digest = read_safetensors(file).digest()
    save_file(TENSORS, tmp_path / "same.safetensors")
    save_file(TENSORS | {"b": torch.zeros(5, dtype=torch.bfloat16)}, tmp_path / "other.safetensors")
    save_file({"a": TENSORS["a"], "c": TENSORS["b"]}, tmp_path / "renamed.safetensors")
    assert read_safetensors(tmp_path / "same.safetensors").digest() == digest
    others = {read_safetensors(tmp_path / f"{name}.safetensors").digest() for name in ("other", "renamed")}
    assert len(others | {digest}) == 3


def test_replaced_file_is_rejected(file: Path, tmp_path: Path) -> None:
    files = read_safetensors(file)
    save_file(TENSORS, tmp_path / "new")
    (tmp_path / "new").replace(file)
    with pytest.raises(FailedPrecondition, match="the file was replaced during loading; load the model again"):
        files.map_tensors()


@pytest.mark.parametrize("size", [0, 7, 8, 50, -1])
def test_truncated_file_is_rejected(file: Path, size: int) -> None:
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(FailedPrecondition, match="can't be read as safetensors; the file is truncated"):
        read_safetensors(file)


def _with_header(file: Path, header: bytes, size: int | None = None) -> None:
    file.write_bytes(struct.pack("<Q", len(header) if size is None else size) + header)


@pytest.mark.parametrize(
    "tensor",
    [
        {"dtype": "F32", "shape": [25_000_000_000], "data_offsets": [0, 100_000_000_000]},
        {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 4]},
        {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
    ],
    ids=["100 GB", "overflow", "unknown dtype", "negative"],
)
def test_header_that_promises_what_the_file_does_not_have_is_rejected_at_once(
    file: Path, tensor: dict[str, Any]
) -> None:
    _with_header(file, json.dumps({"a": tensor}).encode())
    began = time.monotonic()
    with pytest.raises(FailedPrecondition):
        read_safetensors(file)
    assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    ("tensors", "size", "problem"),
    [
        ({"a": [[2], 0, 4]}, 4, "the data of a do not have the size of its shape"),
        ({"a": [[1], 4, 8]}, 8, "the data of a do not have"),
        ({"a": [[1], 0, 4], "b": [[1], 0, 4]}, 4, "the data of b do not have"),
        ({"a": [[-1, -1], 0, 4]}, 4, "the shape and the offsets of a are not whole numbers"),
        ({"a": [[1.0], 0, 4]}, 4, "the shape and the offsets of a are not whole numbers"),
        ({"a": [[1], 0, 4]}, 5, "its tensors end at"),
    ],
    ids=["another size", "hole", "overlap", "negative", "fraction", "rest"],
)
def test_tensors_that_do_not_fill_the_file_are_rejected(
    file: Path, tensors: dict[str, Any], size: int, problem: str
) -> None:
    header = {
        name: {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
        for name, (shape, start, end) in tensors.items()
    }
    _with_header(file, json.dumps(header).encode())
    with file.open("ab") as opened:
        opened.write(bytes(size))
    with pytest.raises(FailedPrecondition, match=problem):
        read_safetensors(file)


def test_header_that_is_too_deep_is_rejected(file: Path) -> None:
    _with_header(file, b"[" * 1_000_000)
    with pytest.raises(FailedPrecondition, match="its header is not valid JSON"):
        read_safetensors(file)


def test_file_that_is_deleted_in_use_is_named(file: Path) -> None:
    tensors = read_safetensors(file).map_tensors()
    file.unlink()
    with pytest.raises(FailedPrecondition, match=rf"{WEIGHTS_FILE}: it can't be mapped into memory"):
        tensors["a"]


def test_digest_changes_at_the_start_the_middle_and_the_end_of_a_tensor(tmp_path: Path) -> None:
    digests = set()
    for changed in (None, 0, 5000, 9999):
        tensor = torch.zeros(10_000)
        if changed is not None:
            tensor[changed] = 1.0
        save_file({"a": tensor}, tmp_path / "a.safetensors")
        digests.add(read_safetensors(tmp_path / "a.safetensors").digest())
    assert len(digests) == 4


def test_header_larger_than_the_file_is_rejected(file: Path) -> None:
    _with_header(file, b"{}", 100_000_000_000)
    with pytest.raises(FailedPrecondition, match="can't be read as safetensors"):
        read_safetensors(file)


def _write_index(folder: Path, weight_map: dict[str, str]) -> None:
    (folder / INDEX_FILE).write_text(json.dumps({"weight_map": weight_map}))


def test_several_files_are_read_as_one(tmp_path: Path) -> None:
    for name, tensor in TENSORS.items():
        save_file({name: tensor}, tmp_path / f"{name}.safetensors")
    _write_index(tmp_path, {name: f"{name}.safetensors" for name in TENSORS})
    tensors = read_safetensors(tmp_path).map_tensors()
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


@pytest.mark.parametrize(
    ("weight_map", "problem"),
    [
        ({"a": "a.safetensors", "b": "a.safetensors"}, r"a\.safetensors: it has no b, which .* says it has"),
        ({"a": "missing.safetensors"}, r"missing\.safetensors: no such file"),
        ({"a": "../a.safetensors"}, "which is not in its folder"),
        ({}, "has no weight_map"),
    ],
)
def test_index_that_does_not_fit_the_files_is_rejected(
    tmp_path: Path, weight_map: dict[str, str], problem: str
) -> None:
    save_file({"a": TENSORS["a"]}, tmp_path / "a.safetensors")
    _write_index(tmp_path, weight_map)
    with pytest.raises(FailedPrecondition, match=problem):
        read_safetensors(tmp_path)


def test_tensor_in_two_files_is_rejected(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "a.safetensors")
    save_file({"a": TENSORS["a"]}, tmp_path / "b.safetensors")
    _write_index(tmp_path, {"b": "a.safetensors", "a": "b.safetensors"})
    with pytest.raises(FailedPrecondition, match=r"b\.safetensors: a is also in a\.safetensors"):
        read_safetensors(tmp_path)


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe"])
def test_index_that_is_no_json_object_is_rejected(tmp_path: Path, content: bytes) -> None:
    (tmp_path / INDEX_FILE).write_bytes(content)
    with pytest.raises(FailedPrecondition) as caught:
        read_safetensors(tmp_path)
    assert caught.value.reason == "CHECKPOINT_INVALID"
