# ruff: noqa: E402
"""Weights that can't fit are refused before any of them is read."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("transformers", reason="the layout is transformers'")

from dgx_music.errors import FailedPrecondition
from generation_service.models.musicgen import loader
from generation_service.models.musicgen.loader import find_musicgen, load_musicgen
from generation_service.models.musicgen.memory_check import require_memory, weight_bytes
from tests.support.transformers_checkpoints import write_transformers_checkpoint


def test_weights_are_counted_in_the_precision_in_which_they_are_loaded(mono: Path, t5: None) -> None:
    checkpoint = find_musicgen(mono).checkpoint
    lm = sum(tensor.numel() for tensor in checkpoint.map_tensors().values())
    assert weight_bytes(checkpoint, "fp32") - weight_bytes(checkpoint, "int8") == 3 * lm
    require_memory(checkpoint, "fp32", weight_bytes(checkpoint, "fp32"), "this machine")
    with pytest.raises(FailedPrecondition, match="but this machine has only") as caught:
        require_memory(checkpoint, "fp32", weight_bytes(checkpoint, "fp32") - 1, "this machine")
    assert caught.value.reason == "MODEL_TOO_LARGE"


def test_model_of_100_gb_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its header and its configuration agree, and its file has the size; only the memory is missing."""
    folder, dim = write_transformers_checkpoint(tmp_path), 32_768
    file = folder / "model.safetensors"
    data = file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header, offset = json.loads(data[8 : 8 + length]), 0
    for name, tensor in header.items():
        if name != "__metadata__":
            if name.startswith(("decoder.", "enc_to_dec_proj")):
                tensor["shape"] = [{64: dim, 256: 256}.get(size, size) for size in tensor["shape"]]
            if "lm_heads" in name:
                tensor["shape"] = [64, dim]
            size = 4
            for each in tensor["shape"]:
                size *= each
            size = size if tensor["dtype"] == "F32" else tensor["data_offsets"][1] - tensor["data_offsets"][0]
            tensor["data_offsets"] = [offset, offset + size]
            offset += size
    encoded = json.dumps(header).encode()
    with file.open("wb") as sparse:
        sparse.write(struct.pack("<Q", len(encoded)) + encoded)
        sparse.truncate(8 + len(encoded) + offset)
    config = json.loads((folder / "config.json").read_text())
    config["decoder"]["hidden_size"] = dim
    (folder / "config.json").write_text(json.dumps(config))
    assert offset > 100e9
    monkeypatch.setattr(loader, "free_memory", lambda: 50 << 30)

    began = time.process_time()
    found = find_musicgen(folder)
    with pytest.raises(FailedPrecondition, match=r"the weights take \d{3}\.\d GB in fp32, but this machine has only"):
        load_musicgen(found)
    assert time.process_time() - began < 1
