"""Files written by `torch.save`, of which only tensors and plain values are ever unpickled."""

from __future__ import annotations

import hashlib
import pickletools
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dgx_music.errors import FailedPrecondition
from generation_service.models.musicgen.checkpoints.checkpoint import (
    COMPRESSION_FILE,
    LM_FILE,
    TensorHeader,
    invalid_checkpoint,
    missing_checkpoint,
)

_NAMED_GLOBALS = 3
"""How many of the globals of an unsafe file an error names."""


def map_pickle(path: Path, inert: Sequence[tuple[type, str]] = ()) -> Any:
    """What was saved. Its tensors are memory-mapped and read when they are used.

    `inert` has classes that stand for others of the given names; objects of these get the state that was saved. Raises
    FailedPrecondition if the file is missing, truncated or foreign, or if reading it would run code.
    """
    check_archive(path)
    try:
        with torch.serialization.safe_globals(list(inert)):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # The unpickler may raise anything for a foreign or damaged file.
        raise _unreadable(path, error, {name for _, name in inert}) from error


def check_archive(path: Path) -> None:
    """Raises FailedPrecondition if the file is missing, or if it is not a complete archive written by torch.save."""
    if not path.is_file():
        raise missing_checkpoint(
            path, f"no such file; expected a folder with audiocraft's {LM_FILE} and {COMPRESSION_FILE}"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except Exception as error:  # A damaged directory of the archive raises many.
        raise _unsafe(path, _globals(path)) or invalid_checkpoint(
            path, "the file is truncated or was not written by torch.save; download audiocraft's export again"
        ) from error
    # torch.save compresses nothing, and what is compressed can't be mapped and may expand to any size.
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise invalid_checkpoint(path, "the archive is compressed; expected a file as torch.save writes it")


def file_digest(path: Path) -> str:
    """16 hexadecimal digits computed from the archive's directory.

    The directory has a CRC-32 of every tensor, so this is as good as a digest of the whole file and does not read it.
    Raises FailedPrecondition if the file is missing or is not an archive.
    """
    check_archive(path)
    digest = hashlib.blake2b(digest_size=8)
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            digest.update(f"{entry.filename.partition('/')[2]} {entry.file_size} {entry.CRC}\n".encode())
    return digest.hexdigest()


def tensor_headers(state: Mapping[Any, Any], path: Path) -> dict[str, TensorHeader]:
    """The headers of an unpickled state. Reads no data of its tensors, which may be mapped.

    Raises FailedPrecondition that names the first entry which is no plain tensor: one that has no data, or fewer than
    its shape says, would fail or take any amount of memory once it is used.
    """
    headers: dict[str, TensorHeader] = {}
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            problem = f"{str(name)[:200]!r} is a {type(tensor).__name__}; expected only tensors by their names"
            raise invalid_checkpoint(path, problem)
        is_plain = tensor.device.type == "cpu" and tensor.layout == torch.strided and not tensor.is_quantized
        if not is_plain or tensor.nbytes > tensor.untyped_storage().nbytes():
            problem = f"{name[:200]} does not have the data of its shape {list(tensor.shape)}; expected a plain tensor"
            raise invalid_checkpoint(path, problem)
        headers[name] = TensorHeader(tuple(tensor.shape), tensor.dtype)
    return headers


def _unreadable(path: Path, error: Exception, known: set[str]) -> FailedPrecondition:
    if (unsafe := _unsafe(path, _globals(path) - known)) is not None:
        return unsafe
    cause = str(error).partition("\n")[0][:200] or type(error).__name__
    return invalid_checkpoint(path, f"can't be read as weights ({cause}); expected an audiocraft export")


def _unsafe(path: Path, names: set[str]) -> FailedPrecondition | None:
    """The error for a pickle that uses globals beyond those of tensors; None if there are none."""
    named = sorted(name for name in names if not _is_harmless(name))
    if not named:
        return None
    more = f" and {len(named) - _NAMED_GLOBALS} more" if len(named) > _NAMED_GLOBALS else ""
    return FailedPrecondition(
        f"{path}: reading it would run {', '.join(named[:_NAMED_GLOBALS])}{more}; only files of tensors are read, "
        "because others can run any code. Nothing in it was run. Use safetensors, or audiocraft's export",
        reason="CHECKPOINT_UNSAFE",
        metadata={"file": str(path), "globals": ", ".join(named[:_NAMED_GLOBALS])},
    )


def _is_harmless(name: str) -> bool:
    module, _, _ = name.rpartition(".")
    return module == "torch" or module in ("torch._utils", "torch.storage", "collections") or name == "builtins.dict"


def _globals(path: Path) -> set[str]:
    """The globals that the file's pickle looks up, read without looking them up. Empty if it is no pickle."""
    try:
        if not zipfile.is_zipfile(path):
            with path.open("rb") as file:
                return _globals_of(file.read(_MAX_PICKLE_BYTES))
        with zipfile.ZipFile(path) as archive:
            pickled = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            with archive.open(pickled) as file:
                return _globals_of(file.read(_MAX_PICKLE_BYTES))
    except Exception:  # A damaged archive raises many.
        return set()


_MAX_PICKLE_BYTES = 16 << 20
"""How much of a pickle is searched for globals."""


def _globals_of(pickled: bytes) -> set[str]:
    names: set[str] = set()
    strings: list[str] = []  # STACK_GLOBAL takes its module and name from the stack, where they are the last strings.
    memo: dict[object, str | None] = {}
    top: str | None = None
    """What was pushed last, if it is a string."""
    try:
        for opcode, argument, _ in pickletools.genops(pickled):
            match opcode.name:
                case "MEMOIZE":
                    memo[len(memo)] = top
                    continue
                case "PUT" | "BINPUT" | "LONG_BINPUT":
                    memo[argument] = top
                    continue
                case "GLOBAL" | "INST":
                    names.add(str(argument).replace(" ", "."))
                    top = None
                case "STACK_GLOBAL":
                    names.add(".".join(strings[-2:]))
                    top = None
                case "GET" | "BINGET" | "LONG_BINGET":
                    top = memo.get(argument)
                case _:
                    top = argument if isinstance(argument, str) else None
            if top is not None:
                strings.append(top)
    except Exception:  # Whatever follows the first pickle of the file, or is no pickle at all.
        return names
    return names
