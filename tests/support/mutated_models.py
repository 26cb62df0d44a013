"""Damages the files of a model as a bad download, a wrong edit or an attacker would: at random, but by structure.

A mutation keeps everything of a file valid except for one place, so that it gets past the first checks: a value of a
configuration, a field of a safetensors header, a tensor or an opcode of a pickle, an entry of an archive.
"""

from __future__ import annotations

import copy
import io
import json
import pickle
import random
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 7, 1 << 20, 1 << 31, 1 << 40, 1 << 63, 10**400),
    *(0.5, -0.5, 1e-300, 1e308, float("nan"), float("inf")),
    *("", "x", "../../etc/passwd", "/etc/passwd", "\0", "\ud800", "é" * 5000, "${sample_rate}", "${a.b.c}", "(a+)+$"),
    *([], {}, [[]], [None], ["x"], [-1], [1 << 40], [0, 0], {"": None}, {"x": {"y": [1]}}, [1] * 100),
)


def mutate_value(value: Any, chance: random.Random) -> tuple[Any, str]:
    """Changes one place in a structure of dicts and lists. Returns a new one, and what was changed."""
    root = copy.deepcopy({"": value})
    places: list[tuple[Any, Any, str]] = []

    def visit(container: Any, key: Any, path: str) -> None:
        places.append((container, key, path))
        child = container[key]
        for each in child if isinstance(child, dict) else range(len(child)) if isinstance(child, list) else ():
            visit(child, each, f"{path}.{each}")

    visit(root, "", "")
    container, key, path = chance.choice(places[1:] or places)
    kind = chance.choice(("replace", "replace", "replace", "delete", "rename", "scale", "repeat"))
    old = container[key]
    if kind == "delete":
        del container[key]
    elif kind == "rename" and isinstance(container, dict):
        container[f"{key}x"] = container.pop(key)
    elif kind == "scale" and type(old) in (int, float):
        container[key] = chance.choice((old + 1, old - 1, old * 2, -old, old * 1000, str(old), float(old)))
    elif kind == "repeat" and isinstance(old, list | str):
        container[key] = old * chance.choice((2, 1000))
    else:
        container[key] = copy.deepcopy(chance.choice(ODD_VALUES))
        kind = "replace"
    text = (
        f"{kind} {path}: {str(old)[:40]!r} -> {str(container.get(key) if isinstance(container, dict) else '')[:40]!r}"
    )
    return root.get("", {}), text


def mutate_bytes(data: bytes, chance: random.Random) -> tuple[bytes, str]:
    """Truncates, overwrites, inserts or removes bytes."""
    at = chance.randrange(len(data) + 1)
    noise = bytes(chance.randrange(256) for _ in range(chance.choice((1, 4, 64))))
    kind = chance.choice(("truncate", "overwrite", "insert", "remove", "empty", "nest"))
    changed = {
        "truncate": data[:at],
        "overwrite": data[:at] + noise + data[at + len(noise) :],
        "insert": data[:at] + noise + data[at:],
        "remove": data[:at] + data[at + len(noise) :],
        "empty": b"",
        "nest": b'{"a":' * 100_000 + b"0" + b"}" * 100_000,
    }[kind]
    return changed, f"{kind} at {at} of {len(data)}"


def mutate_json(file: Path, chance: random.Random) -> str:
    """Changes a value in a JSON file, or some of its bytes."""
    if chance.random() < 0.15:
        changed, what = mutate_bytes(file.read_bytes(), chance)
        file.write_bytes(changed)
        return what
    value, what = mutate_value(json.loads(file.read_bytes()), chance)
    file.write_text(json.dumps(value))
    return what


def mutate_safetensors(file: Path, chance: random.Random) -> str:
    """Changes the header of a safetensors file, its length, or some of the file's bytes."""
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header, body = data[8 : 8 + length], data[8 + length :]
    kind = chance.choice(("header", "header", "header", "length", "bytes", "body"))
    if kind == "header":
        value, what = mutate_value(json.loads(header), chance)
        header = json.dumps(value).encode()
        file.write_bytes(struct.pack("<Q", len(header)) + header + body)
    elif kind == "length":
        new = chance.choice((0, 1, length - 1, length + 1, len(data), 1 << 62, (1 << 64) - 1))
        what = f"header length {new}"
        file.write_bytes(struct.pack("<Q", new) + header + body)
    elif kind == "body":
        what = "body a byte longer or shorter"
        file.write_bytes(data + b"\0" if chance.random() < 0.5 else data[:-1])
    else:
        changed, what = mutate_bytes(data[: 8 + length], chance)
        file.write_bytes(changed + body)
    return what


def mutate_pickle(file: Path, chance: random.Random) -> str:
    """Changes the configuration, a tensor, the pickle or the archive of a file that `torch.save` wrote."""
    mutations: tuple[Callable[[Path, random.Random], str], ...] = (_mutate_opcodes, _mutate_archive)
    try:
        _load(file)
        mutations += (_mutate_xp_config, _mutate_xp_config, _mutate_tensor)
    except pickle.UnpicklingError:
        pass  # A training checkpoint has objects, not only values.
    return chance.choice(mutations)(file, chance)


def _load(file: Path) -> dict[str, Any]:
    package: dict[str, Any] = torch.load(file, weights_only=True)
    return package


def _mutate_xp_config(file: Path, chance: random.Random) -> str:
    package = _load(file)
    if "xp.cfg" not in package or chance.random() < 0.1:
        value, what = mutate_value({key: package[key] for key in package if key != "best_state"}, chance)
        kept = {"best_state": package["best_state"]} if "best_state" in package else {}
        torch.save(value | kept, file)
        return what
    if chance.random() < 0.15:
        changed, what = mutate_bytes(package["xp.cfg"].encode(), chance)
        package["xp.cfg"] = changed.decode(errors="replace")
    else:
        value, what = mutate_value(yaml.safe_load(package["xp.cfg"]), chance)
        package["xp.cfg"] = yaml.safe_dump(value)
    torch.save(package, file)
    return what


TENSORS: dict[str, Callable[[torch.Tensor], Any]] = {
    "none": lambda _: None,
    "text": lambda _: "weights",
    "scalar": lambda tensor: tensor.flatten()[0].clone(),
    "empty": lambda tensor: tensor[:0].clone(),
    "half": lambda tensor: tensor[: len(tensor) // 2].clone(),
    "deeper": lambda tensor: tensor[None].clone(),
    "transposed": lambda tensor: tensor.t() if tensor.dim() == 2 else tensor[None],
    "integers": lambda tensor: tensor.to(torch.int32),
    "complex": lambda tensor: tensor.to(torch.complex64),
    "double": lambda tensor: tensor.double(),
    "one value": lambda tensor: tensor.flatten()[0].clone().expand(tensor.shape),
    "a million": lambda tensor: tensor.flatten()[0].clone().expand(1 << 20, 1 << 20),
    "meta": lambda tensor: tensor.to("meta"),
    "sparse": lambda tensor: tensor.to_sparse(),
    "parameter": torch.nn.Parameter,
    "not finite": lambda tensor: tensor * float("nan"),
}


def _mutate_tensor(file: Path, chance: random.Random) -> str:
    package = _load(file)
    state = package.get("best_state", package)
    name, kind = chance.choice(sorted(state)), chance.choice((*TENSORS, "delete", "rename", "number as name"))
    if kind in TENSORS:
        if not isinstance(state[name], torch.Tensor):
            return "nothing"
        state[name] = TENSORS[kind](state[name])
    else:
        tensor = state.pop(name)
        if kind != "delete":
            state["x" if kind == "rename" else 7] = tensor
    torch.save(package, file)
    return f"{kind} {name}"


def _mutate_opcodes(file: Path, chance: random.Random) -> str:
    what = ""

    def change(name: str, data: bytes) -> bytes:
        nonlocal what
        if name.endswith("data.pkl"):
            data, what = mutate_bytes(data, chance)
        return data

    _rewrite(file, change)
    return f"pickle {what}"


def _mutate_archive(file: Path, chance: random.Random) -> str:
    kind = chance.choice(("bytes", "directory", "compressed", "lost entry", "empty entry", "two pickles"))
    data = file.read_bytes()
    if kind == "bytes":
        data, what = mutate_bytes(data, chance)
        file.write_bytes(data)
        return what
    if kind == "directory":
        tail = max(0, len(data) - 2000)
        changed, what = mutate_bytes(data[tail:], chance)
        file.write_bytes(data[:tail] + changed)
        return f"directory {what}"
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
    lost = chance.choice(names)
    if kind == "compressed":
        _rewrite(file, lambda _, data: data, compression=zipfile.ZIP_DEFLATED)
    elif kind == "two pickles":
        with zipfile.ZipFile(file, "a") as archive:
            archive.writestr("other/data.pkl", b"\x80\x02}.")
    else:
        _rewrite(file, lambda name, data: (None if kind == "lost entry" else b"") if name == lost else data)
    return f"{kind} {lost}"


def _rewrite(file: Path, change: Callable[[str, bytes], bytes | None], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(file) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in entries.items():
            if (changed := change(name, data)) is not None:
                archive.writestr(name, changed)
    file.write_bytes(buffer.getvalue())


def mutate_file(file: Path, chance: random.Random) -> str:
    """Changes a file by what its name says it is. Returns what was changed."""
    if chance.random() < 0.03:
        kind = chance.choice(("missing", "a folder", "unreadable link"))
        file.unlink()
        if kind == "a folder":
            file.mkdir()
        elif kind != "missing":
            file.symlink_to(file.name)
        return kind
    if file.suffix == ".json":
        return mutate_json(file, chance)
    if file.suffix == ".safetensors":
        return mutate_safetensors(file, chance)
    if file.suffix in (".bin", ".th"):
        return mutate_pickle(file, chance)
    changed, what = mutate_bytes(file.read_bytes(), chance)
    file.write_bytes(changed)
    return what


def mutate_folder(original: Path, target: Path, chance: random.Random) -> str:
    """Copies a folder and changes one of its files. Returns which, and what was changed."""
    shutil.copytree(original, target)
    file = chance.choice(sorted(path for path in target.rglob("*") if path.is_file()))
    return f"{file.relative_to(target)}: {mutate_file(file, chance)}"
