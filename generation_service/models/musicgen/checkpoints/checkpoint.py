"""What a model's files give, whatever their layout: configurations, and tensors that stay in the files until used.

`read_checkpoint` (in `checkpoint_reader`) returns a `Checkpoint` for each layout. Its configuration and its tensors
always have audiocraft's names, so that everything that builds networks reads one kind of checkpoint. To support another
kind of model of a known layout, extend the reader of the layout and `parse_lm_config`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from dgx_music.errors import FailedPrecondition

LM_FILE = "state_dict.bin"
COMPRESSION_FILE = "compression_state_dict.bin"

Layout = Literal["audiocraft", "training", "transformers", "converted"]
"""audiocraft's export, a checkpoint of its training, transformers' `save_pretrained`, or `dgx-music models convert`."""


class TensorHeader(NamedTuple):
    """What is known of a tensor without reading it."""

    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class StoredNetwork:
    """A network in files: what they hold, except for the tensors."""

    path: Path
    """The file or folder that errors name."""
    config: Mapping[str, Any]
    headers: Mapping[str, TensorHeader]
    """Those of all tensors, by name."""
    map_tensors: Callable[[], Mapping[str, Tensor]]
    """Maps the tensors into memory anew. Pages that were read stay resident for as long as any tensor of a mapping is
    referenced, so a model is loaded part by part, each part from its own mapping. A mapping may assemble a tensor from
    several of the file when it is looked up. Raises FailedPrecondition if the file has been replaced in the
    meantime."""
    stored_names: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    """What the file calls the tensors that have another name there, for errors."""


@dataclass(frozen=True, slots=True)
class StoredTextEncoder(StoredNetwork):
    """A T5 encoder under transformers' names, and its `config.json`."""

    tokenizer: Path
    """The folder of the tokenizer's files."""


@dataclass(frozen=True, slots=True)
class Checkpoint(StoredNetwork):
    """A language model under audiocraft's names, its `xp.cfg` with resolved references, and what belongs to it."""

    digest: str
    """Hexadecimal digits that change with the content, the codec's included if it is in the folder."""
    layout: Layout
    open_text_encoder: Callable[[], StoredTextEncoder]
    """Raises FailedPrecondition if it is not on this machine, with the command that downloads it."""
    open_codec: Callable[[], StoredNetwork]
    """An EnCodec model; its configuration is transformers' if it has `model_type`, else audiocraft's. Raises
    FailedPrecondition if it is not on this machine, with the command that downloads it."""
    source_licence: object = None
    """Of a converted model, what its files say of the licence of the original."""


def invalid_checkpoint(path: Path, problem: str) -> FailedPrecondition:
    """The error for a file that can't be used; `problem` says what is wrong with it."""
    return FailedPrecondition(f"{path}: {problem}", reason="CHECKPOINT_INVALID", metadata={"file": str(path)})


def missing_checkpoint(path: Path, problem: str, **metadata: str) -> FailedPrecondition:
    """The error for a file that is not there; `problem` says what was expected and how to get it."""
    return FailedPrecondition(
        f"{path}: {problem}", reason="CHECKPOINT_MISSING", metadata={"file": str(path), **metadata}
    )
