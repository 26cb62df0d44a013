"""This project's own layout: one safetensors file with the language model, its codec and its text encoder, which is
mapped into memory, with nothing to unpickle or to put together; beside it the configurations and the tokenizer.

`dgx-music models convert` writes it. The tensors have the names of `Checkpoint`, behind a prefix for each network.
"""

from __future__ import annotations

import json
import math
import shutil
import struct
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, Literal

import torch

from generation_service.models.musicgen.checkpoints.checkpoint import (
    Checkpoint,
    StoredNetwork,
    StoredTextEncoder,
    invalid_checkpoint,
)
from generation_service.models.musicgen.checkpoints.hub_networks import CONFIG_FILE
from generation_service.models.musicgen.checkpoints.renamed_tensors import (
    RenamedTensors,
    renamed_headers,
    sources_below,
)
from generation_service.models.musicgen.checkpoints.safetensors_file import (
    DTYPE_NAMES,
    WEIGHTS_FILE,
    SafetensorsFiles,
    read_json,
    read_safetensors,
)
from generation_service.models.musicgen.checkpoints.transformers_checkpoint import config_digest

FORMAT = "dgx-music"
FORMAT_VERSION = 1
_EXPECTED = "the configuration of a model that dgx-music converted"
_NETWORKS = ("lm", "codec", "text_encoder")
_ALIGNMENT = 64
"""Where tensors begin, in bytes from the beginning of the file, so that they are aligned in memory too."""
StoredPrecision = Literal["fp32", "bf16", "fp16"]
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def is_converted(config: Mapping[str, Any]) -> bool:
    """Whether a folder's `config.json` is of this layout."""
    return config.get("format") == FORMAT


def read_converted(folder: Path) -> Checkpoint:
    """Raises FailedPrecondition if files are missing, truncated, or of another version of the layout."""
    raw = read_json(folder / CONFIG_FILE, _EXPECTED)
    if raw.get("format_version") != FORMAT_VERSION:
        problem = (
            f"format_version is {raw.get('format_version')!r}, but this version of dgx-music reads {FORMAT_VERSION}"
        )
        raise invalid_checkpoint(folder / CONFIG_FILE, f"{problem}; convert the model again")
    for network in _NETWORKS:
        if not isinstance(raw.get(network), dict):
            raise invalid_checkpoint(folder / CONFIG_FILE, f"it has no {network}; expected {_EXPECTED}")
    files = read_safetensors(folder / WEIGHTS_FILE)
    lm, codec, text_encoder = (_part(files, raw[network], f"{network}.") for network in _NETWORKS)
    return Checkpoint(
        path=lm.path,
        config=lm.config,
        headers=lm.headers,
        map_tensors=lm.map_tensors,
        digest=config_digest(files, raw),
        layout="converted",
        open_text_encoder=lambda: StoredTextEncoder(
            text_encoder.path, text_encoder.config, text_encoder.headers, text_encoder.map_tensors, folder
        ),
        open_codec=lambda: codec,
        source_licence=source.get("licence") if isinstance(source := raw.get("source"), dict) else None,
    )


def write_converted(
    checkpoint: Checkpoint, folder: Path, precision: StoredPrecision | None, source: Mapping[str, str]
) -> None:
    """Writes a checkpoint of any layout to a folder that does not exist, tensor by tensor.

    The language model gets the precision, or keeps that of the file; the codec and the text encoder keep theirs.
    `source` says where the model is from. Raises FailedPrecondition like the checkpoint, and OSError; then no folder is
    left.
    """
    networks, text_encoder = _networks(checkpoint), checkpoint.open_text_encoder()
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # Of a conversion that was interrupted.
    part.mkdir(parents=True)
    with ExitStack() as on_error:
        on_error.callback(shutil.rmtree, part, ignore_errors=True)
        for file in text_encoder.tokenizer.iterdir():
            if file.is_file() and ("token" in file.name or file.suffix == ".model"):
                shutil.copyfile(file, part / file.name)
        with (part / WEIGHTS_FILE).open("wb") as weights:
            _write_safetensors(weights, networks, precision)
        config = {"format": FORMAT, "format_version": FORMAT_VERSION, "source": dict(source)}
        config |= {network: stored.config for network, stored in networks.items()}
        (part / CONFIG_FILE).write_text(json.dumps(config, indent=2, default=str))
        part.rename(folder)
        on_error.pop_all()


def converted_bytes(checkpoint: Checkpoint, precision: StoredPrecision | None) -> int:
    """The size of the tensors in the file that `write_converted` writes."""
    return sum(size for *_, size in _tensors(_networks(checkpoint), precision))


def _networks(checkpoint: Checkpoint) -> dict[str, StoredNetwork]:
    return dict(zip(_NETWORKS, (checkpoint, checkpoint.open_codec(), checkpoint.open_text_encoder()), strict=True))


def _tensors(
    networks: Mapping[str, StoredNetwork], precision: StoredPrecision | None
) -> Iterator[tuple[str, str, torch.dtype, int]]:
    """Network, name, dtype and size in bytes of each tensor of the file, in its order."""
    for network, stored in networks.items():
        for name, (shape, dtype) in stored.headers.items():
            if precision is not None and network == "lm" and dtype.is_floating_point:
                dtype = _DTYPES[precision]
            yield network, name, dtype, dtype.itemsize * math.prod(shape)


def _write_safetensors(
    file: BinaryIO, networks: Mapping[str, StoredNetwork], precision: StoredPrecision | None
) -> None:
    """As safetensors' own writer, except that it holds one tensor in memory and not all."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for network, name, dtype, size in _tensors(networks, precision):
        header[f"{network}.{name}"] = {
            "dtype": DTYPE_NAMES[dtype],
            "shape": list(networks[network].headers[name].shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-(8 + len(encoded)) % _ALIGNMENT)
    file.write(struct.pack("<Q", len(encoded)) + encoded)
    mapped = {network: stored.map_tensors() for network, stored in networks.items()}
    for network, name, dtype, _ in _tensors(networks, precision):
        data = mapped[network][name].to(dtype).contiguous().reshape(-1).view(torch.uint8)
        file.write(data.numpy().tobytes())


def _part(files: SafetensorsFiles, config: Mapping[str, Any], prefix: str) -> StoredNetwork:
    sources = sources_below(prefix, files.headers)
    return StoredNetwork(
        path=files.path,
        config=config,
        headers=renamed_headers(files.headers, sources),
        map_tensors=lambda: RenamedTensors(files.map_tensors(), sources),
        stored_names={name: stored for name, (stored,) in sources.items()},
    )
